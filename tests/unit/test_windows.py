"""Laws of the rolling windows: never one too many, never one held back in vain."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.errors import ConfigurationError
from gather_async.protocol.rolling_windows import (
    RateLimit,
    RollingWindows,
    check_rate_limits,
    expiry,
)

_periods = st.one_of(
    st.integers(1, 20).map(float), st.floats(0.01, 100.0), st.sampled_from([0.1, 0.3, 60.0])
)
_limits = st.lists(
    st.builds(lambda limit, per: RateLimit(limit, per=per), st.integers(1, 6), _periods),
    min_size=1,
    max_size=3,
)
_steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "answer", "pass", "return", "jump"]),
        st.one_of(st.integers(0, 5).map(float), st.floats(0.0, 30.0), st.just(0.1)),
        st.integers(0, 100),
    ),
    max_size=80,
)


def _counted(stamp: float, now: float, period: float) -> bool:
    """Return whether some server, however it computes, still counts the stamp."""
    return now - stamp < period or stamp > now - period or stamp + period > now


class _History:
    """Drives windows through steps and remembers what happened, naively."""

    def __init__(self, limits: list[RateLimit], start: float) -> None:
        self.limits = limits
        self.windows = RollingWindows(limits)
        self.now = start
        self.flying: list[float] = []
        self.answered: list[tuple[float, float]] = []

    def may_start(self) -> bool:
        """Return what a naive reading of the rule says."""
        return all(
            len(self.flying) + sum(_counted(at, self.now, each.per) for _, at in self.answered)
            < each.limit
            for each in self.limits
        )

    def step(self, kind: str, seconds: float, pick: int) -> None:
        """Do one step, if it is possible."""
        if kind == "pass":
            self.now += seconds
        elif kind == "jump":
            at = self.windows.free_at(self.now)
            if at < math.inf:
                self.now = at
        elif kind == "start":
            if self.windows.is_free(self.now):
                self.windows.sent()
                self.flying.append(self.now)
        elif self.flying:
            sent_at = self.flying.pop(pick % len(self.flying))
            if kind == "answer":
                self.windows.answered(self.now)
                self.answered.append((sent_at, self.now))
            else:
                self.windows.returned()


@given(_limits, _steps, st.sampled_from([0.0, 1000.0, 86_400.123456789]))
def test_a_request_is_let_go_exactly_when_every_stamping_server_has_room(
    limits: list[RateLimit], steps: list[tuple[str, float, int]], start: float
) -> None:
    """A request waits if and only if some server might refuse it, to the last bit of a float."""
    history = _History(limits, start)
    for kind, seconds, pick in steps:
        history.step(kind, seconds, pick)
        assert history.windows.is_free(history.now) == history.may_start()


@given(_limits, _steps, st.randoms(use_true_random=False))
def test_no_server_ever_counts_more_than_the_limit(
    limits: list[RateLimit], steps: list[tuple[str, float, int]], random: object
) -> None:
    """Wherever between sending and answer each request is stamped, no window overflows."""
    history = _History(limits, 0.0)
    for kind, seconds, pick in steps:
        history.step(kind, seconds, pick)
    spans = [*history.answered, *((sent_at, history.now) for sent_at in history.flying)]
    draw = random.choice  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    stamps = sorted(
        draw([sent_at, answered_at, (sent_at + answered_at) / 2]) for sent_at, answered_at in spans
    )
    for limit in limits:
        for number, now in enumerate(stamps, 1):
            counted = sum(_counted(stamp, now, limit.per) for stamp in stamps[:number])
            assert counted <= limit.limit


@given(_limits, _steps)
def test_the_time_it_names_is_the_first_that_is_free(
    limits: list[RateLimit], steps: list[tuple[str, float, int]]
) -> None:
    """At `free_at` a request may start, and a float's last bit earlier it may not."""
    history = _History(limits, 1000.0)
    for kind, seconds, pick in steps:
        history.step(kind, seconds, pick)
    at = history.windows.free_at(history.now)
    assert at >= history.now
    if at == math.inf:
        assert len(history.flying) >= min(each.limit for each in limits)
        return
    if at > history.now:
        history.now = math.nextafter(at, -math.inf)
        assert not history.may_start()
    history.now = at
    assert history.may_start()
    assert history.windows.is_free(at)


@given(st.floats(0.0, 1e9), st.floats(1e-3, 1e6))
def test_expiry_is_the_first_instant_that_no_arithmetic_counts(at: float, period: float) -> None:
    """From `expiry` on every way to compare agrees that the stamp is out; before, one doesn't."""
    gone = expiry(at, period)
    assert not _counted(at, gone, period)
    assert _counted(at, math.nextafter(gone, -math.inf), period)


@given(_limits, _steps)
def test_the_number_used_is_what_a_naive_count_says(
    limits: list[RateLimit], steps: list[tuple[str, float, int]]
) -> None:
    """`used` counts those in flight and those answered less than a period ago."""
    history = _History(limits, 0.0)
    for kind, seconds, pick in steps:
        history.step(kind, seconds, pick)
        for window, limit in zip(history.windows.windows, limits, strict=True):
            counted = sum(_counted(at, history.now, limit.per) for _, at in history.answered)
            expected = len(history.flying) + counted
            assert history.windows.used(window, history.now) == expected


@given(st.lists(st.floats(0.0, 50.0), max_size=30), st.floats(0.0, 60.0), st.floats(0.0, 60.0))
def test_count_is_a_plain_count_of_the_log(
    instants: list[float], after: float, until: float
) -> None:
    """`count` finds by bisection in the circular log what a scan would."""
    windows = RollingWindows([RateLimit(8, per=1000.0)])
    for at in sorted(instants):
        windows.sent()
        windows.answered(at)
    kept = sorted(instants)[-8:]
    assert windows.count(after, until) == sum(after < at <= until for at in kept)
    assert windows.count(after) == sum(after < at for at in kept)


def test_bulk_leaves_the_reserve_free() -> None:
    """With a reserve of 2 of 5, bulk starts three times and interactive twice more."""
    windows = RollingWindows([RateLimit(5, per=60)], reserve=2)
    starts = 0
    while windows.is_free(0.0, bulk=True):
        windows.sent()
        starts += 1
    assert starts == 3
    while windows.is_free(0.0):
        windows.sent()
        starts += 1
    assert starts == 5


def test_a_reserve_as_large_as_the_window_leaves_bulk_one_slot() -> None:
    """A window smaller than the reserve doesn't stop bulk for good."""
    windows = RollingWindows([RateLimit(3, per=60)], reserve=5)
    assert windows.is_free(0.0, bulk=True)
    windows.sent()
    assert not windows.is_free(0.0, bulk=True)
    assert windows.is_free(0.0)


def test_history_inserted_later_counts_like_ones_own() -> None:
    """Answers of an earlier process fill the window; future ones count as now."""
    windows = RollingWindows([RateLimit(3, per=60)])
    windows.sent()
    windows.answered(100.0)
    windows.insert([30.0, 80.0, 500.0], 100.0)
    assert windows.answers(100.0) == [80.0, 100.0, 100.0]
    assert windows.free_at(100.0) == 140.0


def test_the_log_stays_as_large_as_the_largest_limit() -> None:
    """Memory is bounded by the limit, however many requests were answered."""
    windows = RollingWindows([RateLimit(2, per=0.1), RateLimit(10, per=1.0)])
    for second in range(1000):
        windows.sent()
        windows.answered(float(second))
    assert len(windows.answers(999.0)) == 1
    assert windows.count(0.0) == 10


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "10", None])
def test_a_limit_must_be_a_positive_whole_number(limit: object) -> None:
    """Anything but a whole number from 1 is refused at construction."""
    with pytest.raises(ConfigurationError, match=r"RateLimit\.limit"):
        RateLimit(limit, per=60)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("per", [0, -1.0, math.nan, math.inf, False, "60", None])
def test_a_period_must_be_positive_and_finite(per: object) -> None:
    """Anything but a positive finite number of seconds is refused at construction."""
    with pytest.raises(ConfigurationError, match=r"RateLimit\.per"):
        RateLimit(10, per=per)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("limits", [(), [60], None, 5, RateLimit(1, per=1), "abc"])
def test_a_list_of_limits_must_hold_at_least_one_limit(limits: object) -> None:
    """An empty list, a list of something else, and no list at all are refused."""
    with pytest.raises(ConfigurationError, match="rate_limits"):
        check_rate_limits(limits)  # type: ignore[arg-type]  # the point of the test


@given(_limits)
def test_limits_are_put_in_order_once_each(limits: list[RateLimit]) -> None:
    """The shortest period comes first, and a limit given twice counts once."""
    checked = check_rate_limits([*limits, *limits])
    assert set(checked) == set(limits)
    assert all((one.per, one.limit) < (other.per, other.limit) for one, other in pairwise(checked))
