"""The decision whether a failed request is retried, and when.

Source: /guides/best-practices (retry 429 and 5xx, exponentially, with a cap);
/guides/error-handling (which statuses there are). A write has no idempotency
key, so it goes again only if it can't have been carried out.
"""

from collections.abc import Callable
from typing import Any

from attrs import field, frozen
from attrs.validators import optional

from gather_async.errors import GatherAPIError, GatherError, ResponseDecodeError
from gather_async.validators import Number

__all__ = ["Failure", "LONGEST_HOLD", "Retry", "RetryPolicy", "backoff", "decide"]

_RETRIED_STATUSES = frozenset({408, 429})
LONGEST_HOLD = 3660.0  # the longest documented window, and a minute for skewed clocks


_COUNT = Number(least=1, whole=True, owner="RetryPolicy")
_SECONDS = Number(above=0, unit="seconds", owner="RetryPolicy")
_SECONDS_OR_NONE: Any = optional(_SECONDS)


@frozen(kw_only=True)
class RetryPolicy:
    """Policy for trying failed requests again.

    The pause before attempt n + 1 is drawn evenly from 0 to
    ``min(cap, base * 2 ** (n - 1))`` seconds (full jitter).

    Raises:
        ConfigurationError: A number is out of range.
    """

    attempts: int = field(default=4, validator=_COUNT)
    """Requests at most, the first included; look-ups don't count. 1 sends once: it
    switches off retrying and look-ups."""
    base: float = field(default=0.5, validator=_SECONDS)
    """Seconds: the longest first pause."""
    cap: float = field(default=30.0, validator=_SECONDS)
    """Seconds: the longest pause."""
    total: float = field(default=120.0, validator=_SECONDS)
    """Seconds from the first request after which nothing is tried again, nor looked up.
    Waiting for the quota doesn't count, but between look-ups."""
    in_flight_timeout: float | None = field(default=45.0, validator=_SECONDS_OR_NONE)
    """Seconds after which a write that was given up can't be carried out any more.

    A gateway gives up before its backend does, commonly after 30 s, and a list may show a
    new object late. Until then a write of unknown fate is only looked up; if it is absent
    then, it is sent again. None: never look, but raise at once, with
    ``maybe_processed=True``; what proves that nothing was done (429, or a request that
    never left) is still tried again.
    """


@frozen(kw_only=True)
class Failure:
    """Failure of one attempt."""

    was_sent: bool
    """Whether the request left, so that the server may have carried it out."""
    status: int | None = None
    """The response's status; None if no response came."""
    reset_in: float | None = None
    """Seconds that the response asks to wait; None if it didn't say."""
    is_permanent: bool = False
    """Whether another attempt would fail alike."""

    @classmethod
    def of(cls, error: GatherError, *, longest_hold: Callable[[], float]) -> "Failure":
        """Return what an error means.

        Args:
            error: How the attempt failed.
            longest_hold: Returns the seconds that a refusal (429) can ask to wait at most.
        """
        if isinstance(error, GatherAPIError):
            reset_in = error.retry_after
            if error.status == 429 and reset_in is not None:
                reset_in = min(reset_in, longest_hold())
            return cls(was_sent=True, status=error.status, reset_in=reset_in)
        if isinstance(error, ResponseDecodeError):
            return cls(was_sent=True, status=200)
        return cls(
            was_sent=bool(getattr(error, "maybe_processed", False)),
            is_permanent=bool(getattr(error, "is_permanent", False)),
        )

    @property
    def is_ambiguous(self) -> bool:
        """Whether the request may or may not have been carried out."""
        if self.status is None:
            return self.was_sent
        return self.status >= 500 or self.status == 408 or self.status < 300


@frozen(kw_only=True)
class Retry:
    """Try again."""

    wait: float
    """Seconds to pause first."""
    hold: bool
    """Whether the pause is for the whole client, because the quota is used up."""


def backoff(
    attempt: int, *, base: float, cap: float, draw: float = 1.0, factor: float = 2.0
) -> float:
    """Return the seconds to pause after a failed attempt: ``base`` at first, growing to ``cap``.

    >>> [backoff(n, base=0.5, cap=30.0) for n in (1, 2, 3, 10_000)]
    [0.5, 1.0, 2.0, 30.0]

    Args:
        attempt: Which one it was, from 1.
        base: Seconds after the first, above 0.
        cap: Seconds at most, above 0.
        draw: The part of the pause that is taken, 0 to 1; random, so that those who
            failed together don't come back together.
        factor: How much longer each pause is than the one before; 1 or more.
    """
    try:
        grown = base * factor ** (attempt - 1)
    except OverflowError:
        grown = cap
    return draw * min(cap, grown)


def decide(
    policy: RetryPolicy,
    failure: Failure,
    *,
    repeatable: bool,
    attempt: int,
    elapsed: float,
    draw: float,
    hold_left: float = LONGEST_HOLD,
) -> Retry | None:
    """Return how to go on after a failure; None to give up.

    Args:
        policy: The caller's policy.
        failure: What went wrong.
        repeatable: Whether carrying it out twice does no harm: a read, a write
            that the caller calls idempotent, or one known not to have happened.
        attempt: Requests made so far, at least 1.
        elapsed: Seconds since the first, without waits for the quota.
        draw: A random number from 0 to 1.
        hold_left: Seconds that the call may still wait because the quota is used up.
    """
    if attempt >= policy.attempts or failure.is_permanent or not _is_transient(failure):
        return None
    if failure.is_ambiguous and not repeatable:
        return None
    pause = backoff(attempt, base=policy.base, cap=policy.cap, draw=draw)
    asked = failure.reset_in or 0.0
    if failure.status == 429:
        # The jitter keeps many clients of one key from coming back together.
        is_left = min(asked, LONGEST_HOLD) <= hold_left
        return Retry(wait=min(asked + pause, hold_left), hold=True) if is_left else None
    wait = asked + pause if asked else pause
    return None if elapsed + wait > policy.total else Retry(wait=wait, hold=False)


def _is_transient(failure: Failure) -> bool:
    status = failure.status
    return status is None or status >= 500 or status in _RETRIED_STATUSES
