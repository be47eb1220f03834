"""The retry decision: a table, and laws over every failure, policy and moment."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.errors import ConfigurationError
from gather_async.protocol.retry import LONGEST_HOLD, Failure, Retry, RetryPolicy, backoff, decide

seconds = st.floats(min_value=0, max_value=1e9)
positive = st.floats(min_value=1e-6, max_value=1e308)
policies = st.builds(
    RetryPolicy,
    attempts=st.integers(min_value=1, max_value=10_000),
    base=positive,
    cap=positive,
    total=positive,
)
failures = st.builds(
    Failure,
    was_sent=st.booleans(),
    status=st.none() | st.integers(min_value=200, max_value=599),
    reset_in=st.none() | st.floats(min_value=0, max_value=1e12),
)
attempts = st.integers(min_value=1, max_value=10_000)
draws = st.floats(min_value=0, max_value=1)


def given_up(failure: Failure, *, repeatable: bool) -> bool:
    """Return whether a first failure is the last, under the default policy."""
    decision = decide(
        RetryPolicy(), failure, repeatable=repeatable, attempt=1, elapsed=0.0, draw=0.5
    )
    return decision is None


@pytest.mark.parametrize(
    ("failure", "read_goes_again", "write_goes_again"),
    [
        (Failure(was_sent=False), True, True),
        (Failure(was_sent=True), True, False),
        (Failure(was_sent=True, status=408), True, False),
        (Failure(was_sent=True, status=429), True, True),
        (Failure(was_sent=True, status=500), True, False),
        (Failure(was_sent=True, status=502), True, False),
        (Failure(was_sent=True, status=503), True, False),
        (Failure(was_sent=True, status=504), True, False),
        (Failure(was_sent=True, status=599), True, False),
        (Failure(was_sent=True, status=200), False, False),
        (Failure(was_sent=True, status=302), False, False),
        (Failure(was_sent=True, status=400), False, False),
        (Failure(was_sent=True, status=401), False, False),
        (Failure(was_sent=True, status=403), False, False),
        (Failure(was_sent=True, status=404), False, False),
        (Failure(was_sent=True, status=409), False, False),
        (Failure(was_sent=True, status=422), False, False),
    ],
)
def test_what_goes_again(failure: Failure, read_goes_again: bool, write_goes_again: bool) -> None:
    """A read goes again if it may help, a write only if it can't have been carried out."""
    assert given_up(failure, repeatable=True) is not read_goes_again
    assert given_up(failure, repeatable=False) is not write_goes_again


@given(policies, failures, attempts, seconds, draws)
def test_an_ambiguous_failure_is_never_repeated_unless_that_is_harmless(
    policy: RetryPolicy, failure: Failure, attempt: int, elapsed: float, draw: float
) -> None:
    """No one is invited twice, whatever the policy."""
    decision = decide(
        policy, failure, repeatable=False, attempt=attempt, elapsed=elapsed, draw=draw
    )
    if failure.is_ambiguous:
        assert decision is None


@given(
    policy=policies,
    failure=failures,
    repeatable=st.booleans(),
    attempt=attempts,
    elapsed=seconds,
    draw=draws,
)
def test_a_decision_stays_within_attempts_cap_and_total(
    *,
    policy: RetryPolicy,
    failure: Failure,
    repeatable: bool,
    attempt: int,
    elapsed: float,
    draw: float,
) -> None:
    """A retry is within the attempts; its pause within the cap, the reset and the total."""
    decision = decide(
        policy, failure, repeatable=repeatable, attempt=attempt, elapsed=elapsed, draw=draw
    )
    if attempt >= policy.attempts:
        assert decision is None
    if decision is None:
        return
    assert math.isfinite(decision.wait)
    assert decision.hold is (failure.status == 429)
    if decision.hold:
        assert 0 <= decision.wait <= min(failure.reset_in or 0, LONGEST_HOLD) + policy.cap
        assert decision.wait <= LONGEST_HOLD
    else:
        asked = failure.reset_in or 0
        assert asked <= decision.wait <= asked + policy.cap
        assert elapsed + decision.wait <= policy.total


@given(
    policy=policies,
    failure=failures,
    repeatable=st.booleans(),
    attempt=attempts,
    elapsed=seconds,
    draw=draws,
    data=st.data(),
)
def test_a_later_attempt_waits_no_shorter_and_is_no_likelier(
    *,
    policy: RetryPolicy,
    failure: Failure,
    repeatable: bool,
    attempt: int,
    elapsed: float,
    draw: float,
    data: st.DataObject,
) -> None:
    """For the same draw, pauses only grow; what was given up early isn't taken up late."""
    more_attempts = attempt + data.draw(st.integers(min_value=0, max_value=100))
    more_elapsed = elapsed + data.draw(seconds)
    early = decide(
        policy, failure, repeatable=repeatable, attempt=attempt, elapsed=elapsed, draw=draw
    )
    late = decide(
        policy,
        failure,
        repeatable=repeatable,
        attempt=more_attempts,
        elapsed=more_elapsed,
        draw=draw,
    )
    if late is not None:
        assert early is not None
        assert early.wait <= late.wait


@given(policies, failures, attempts, seconds, draws)
def test_calling_it_repeatable_never_forbids_a_retry(
    policy: RetryPolicy, failure: Failure, attempt: int, elapsed: float, draw: float
) -> None:
    """The caller's word that repeating is harmless can only allow more."""
    cautious, free = (
        decide(policy, failure, repeatable=each, attempt=attempt, elapsed=elapsed, draw=draw)
        for each in (False, True)
    )
    assert cautious is None or cautious == free


def test_pauses_double_from_the_base_up_to_the_cap() -> None:
    """Full jitter draws from 0 to ``min(cap, base * 2 ** (n - 1))``."""
    policy = RetryPolicy(attempts=10, base=0.5, cap=3.0, total=1000.0)
    waits = [
        decide(policy, Failure(was_sent=False), repeatable=True, attempt=n, elapsed=0.0, draw=1.0)
        for n in range(1, 6)
    ]
    assert waits == [Retry(wait=wait, hold=False) for wait in (0.5, 1.0, 2.0, 3.0, 3.0)]


def test_a_429_waits_for_the_reset_and_then_some_whatever_has_elapsed() -> None:
    """Waiting for the quota doesn't count against the total, and a senseless reset is capped."""
    policy = RetryPolicy(total=1.0)

    def wait(reset_in: float | None) -> Retry | None:
        failure = Failure(was_sent=True, status=429, reset_in=reset_in)
        return decide(policy, failure, repeatable=False, attempt=1, elapsed=99.0, draw=0.5)

    assert wait(None) == Retry(wait=0.25, hold=True)
    assert wait(40.0) == Retry(wait=40.25, hold=True)
    assert wait(1e9) == Retry(wait=LONGEST_HOLD, hold=True)


def test_a_call_that_was_held_for_long_gives_up() -> None:
    """All holds of a call share one time: a server that refuses for ever stalls no one for ever."""
    failure = Failure(was_sent=True, status=429, reset_in=50.0)

    def decided(hold_left: float) -> Retry | None:
        return decide(
            RetryPolicy(),
            failure,
            repeatable=False,
            attempt=1,
            elapsed=0.0,
            draw=0.0,
            hold_left=hold_left,
        )

    assert decided(50.0) == Retry(wait=50.0, hold=True)
    assert decided(49.0) is None


@pytest.mark.parametrize("status", [408, 500, 503, 599])
def test_what_a_failed_server_asks_for_is_waited_for_within_the_total(status: int) -> None:
    """``Retry-After`` of a 5xx makes the pause longer, never shorter, or the last."""
    policy = RetryPolicy(total=60.0)

    def wait(reset_in: float) -> Retry | None:
        failure = Failure(was_sent=True, status=status, reset_in=reset_in)
        return decide(policy, failure, repeatable=True, attempt=1, elapsed=30.0, draw=0.5)

    assert wait(0.0) == Retry(wait=0.25, hold=False)
    assert wait(6.0) == Retry(wait=6.25, hold=False)
    assert wait(31.0) is None


def test_what_cannot_mend_itself_is_not_tried_again() -> None:
    """A certificate or a proxy that refuses is no better the second time."""
    assert given_up(Failure(was_sent=False, is_permanent=True), repeatable=True)


@pytest.mark.parametrize("attempts", [0, -1, 1.0, True, None, "4"])
def test_attempts_must_be_a_whole_number_from_1(attempts: Any) -> None:
    """A policy that can't work is refused when it is made."""
    with pytest.raises(ConfigurationError, match="attempts"):
        RetryPolicy(attempts=attempts)


@pytest.mark.parametrize("name", ["base", "cap", "total", "in_flight_timeout"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "1", 10**400])
def test_durations_must_be_finite_and_above_0(name: str, value: Any) -> None:
    """A duration that no clock can wait for is refused by name."""
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**{name: value})


@given(attempts, positive, positive, draws, st.floats(min_value=1, max_value=1e308))
def test_a_pause_never_exceeds_its_cap_nor_shrinks(
    attempt: int, base: float, cap: float, draw: float, factor: float
) -> None:
    """Whatever the numbers, a pause is 0 to ``cap`` seconds, and no shorter than the one before."""
    pause = backoff(attempt, base=base, cap=cap, draw=draw, factor=factor)
    assert 0.0 <= pause <= cap
    assert pause <= backoff(attempt + 1, base=base, cap=cap, draw=draw, factor=factor)
    assert pause == draw * backoff(attempt, base=base, cap=cap, factor=factor)


def test_pauses_grow_by_their_factor() -> None:
    """The documented doubling is the default; the last pause is the longest for ever."""
    assert [backoff(n, base=1.0, cap=10.0) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert [backoff(n, base=5.0, cap=30.0, factor=6.0) for n in (1, 2, 3)] == [5, 30, 30]
    assert backoff(10**6, base=1.0, cap=10.0, factor=1.6) == 10.0
