"""Requests of a job: what was sent, what is in flight, and what a failed one leads to."""

import asyncio
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from attrs import define, evolve, field, frozen

from gather_async import errors
from gather_async.bulk.journal_schema import Instant
from gather_async.clock import Clock
from gather_async.errors import (
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
)
from gather_async.models.rate_limit import RateLimitStatus
from gather_async.protocol.server_quota import ServerQuota
from gather_async.quota import Limiter, Priority, Slot

__all__ = [
    "CircuitBreaker",
    "InterviewNotFound",
    "RequestLog",
    "Restorable",
    "TrackedLimiter",
    "deserialize_error",
    "is_fatal",
    "is_rejection",
    "may_be_processed",
    "names_interview",
    "owner_of",
    "serialize_error",
    "suggests_duplicate",
]


class RequestLog(Protocol):
    """Store of the times of requests, for the next process."""

    async def request_started(self, at: Instant) -> int:
        """Write down a request before it is sent; return its number."""
        ...

    def request_ended(self, number: int, at: float | None) -> None:
        """Correct its time to when it ended; None if it never was sent."""

    async def record_alive(self, at: Instant) -> None:
        """Write down that requests are still on their way."""


@runtime_checkable
class Restorable(Protocol):
    """A limiter that takes requests from before its time."""

    def restore(self, wall_times: Iterable[float]) -> None:
        """Count requests that another process sent under this key."""


# A limiter that counts a journal's requests must not count them again.
_OWNERS: WeakKeyDictionary[Limiter, str] = WeakKeyDictionary()


def owner_of(limiter: Limiter) -> str:
    """Return what names a limiter for as long as it lives, or its quota for longer than that."""
    identity: str | None = getattr(limiter, "identity", None)  # of a quota that processes share
    if identity is not None:
        return identity
    name = uuid.uuid4().hex
    with suppress(TypeError):  # it can't be a weak key, and counts requests anew each time
        return _OWNERS.setdefault(limiter, name)
    return name


@define(eq=False)
class TrackedLimiter:
    """Passes everything on to the client's limiter, and writes down what is sent.

    A job that stops asks it which of its tasks wait for the quota: those can be
    cancelled at once, since nothing of theirs is on the wire.
    """

    _limiter: Limiter
    _clock: Clock
    is_stopping: Callable[[], bool]
    heartbeat: float
    """Seconds between notes that requests are still in flight."""
    log: RequestLog | None = None
    """None writes nothing down."""
    requests: int = 0
    """Requests sent so far."""
    busy: asyncio.Event = field(factory=asyncio.Event)
    """Set while a request may be in flight."""
    _in_flight: Counter[int] = field(factory=Counter)
    _sent: "WeakKeyDictionary[asyncio.Task[Any], int]" = field(factory=WeakKeyDictionary)
    """Requests of each task that were sent, or are being sent."""

    async def acquire(self, *, priority: Priority, max_wait: float | None, **options: Any) -> Slot:
        """Return a slot of the client's limiter, once that is written down.

        Raises:
            CancelledError: The job is stopping, and begins nothing more.
        """
        if self.is_stopping():
            raise asyncio.CancelledError
        slot = await self._limiter.acquire(priority=priority, max_wait=max_wait, **options)
        number = 0
        try:
            if self.log is not None:
                number = await self.log.request_started(self.now())
        except BaseException:
            slot.returned()
            raise
        self.requests += 1
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._sent[task] = self._sent.get(task, 0) + 1
        self._in_flight[id(task)] += 1
        self.busy.set()
        return _TrackedSlot(self, slot, task, number)

    def requests_sent(self) -> int:
        """Return how many requests the running task has sent, or is sending."""
        task = asyncio.current_task()
        return 0 if task is None else self._sent.get(task, 0)

    def now(self) -> Instant:
        """Return this moment."""
        return Instant(self._clock.wall(), self._clock.monotonic())

    async def record_in_flight(self) -> None:
        """Write down from time to time that requests are in flight, so that a crash has a time."""
        while True:
            await self.busy.wait()
            await self._clock.sleep(self.heartbeat)
            if self.busy.is_set() and self.log is not None:
                await self.log.record_alive(self.now())

    def is_in_flight(self, task: "asyncio.Task[None]") -> bool:
        """Return whether a request of this task may be on the wire."""
        return id(task) in self._in_flight

    def hold(self, until: float) -> None:
        """Let nothing start before this wall time."""
        self._limiter.hold(until)

    def status(self) -> RateLimitStatus:
        """Return what is known of the quota now."""
        return self._limiter.status()

    def estimate(self, requests: int, *, priority: Priority) -> timedelta:
        """Return how long until that many more requests could have been sent."""
        return self._limiter.estimate(requests, priority=priority)

    def end(self, task: "asyncio.Task[Any]", number: int, *, was_sent: bool) -> None:
        """Note that a request is over."""
        if not was_sent:
            self.requests -= 1
            self._sent[task] -= 1
        self._in_flight[id(task)] -= 1
        if not self._in_flight[id(task)]:
            del self._in_flight[id(task)]
        if not self._in_flight:
            self.busy.clear()
        if self.log is not None:
            self.log.request_ended(number, self._clock.wall() if was_sent else None)


@frozen(eq=False)
class _TrackedSlot:
    _tracked: TrackedLimiter
    _slot: Slot
    _task: "asyncio.Task[Any]"
    _number: int

    def resent(self) -> None:
        self._tracked.requests += 1
        self._slot.resent()

    def answered(self, quota: ServerQuota | None) -> None:
        self._tracked.end(self._task, self._number, was_sent=True)
        self._slot.answered(quota)

    def lost(self) -> None:
        self._tracked.end(self._task, self._number, was_sent=True)
        self._slot.lost()

    def returned(self) -> None:
        self._tracked.end(self._task, self._number, was_sent=False)
        self._slot.returned()


# The server's own words may repeat what it was sent: a name, an address, a number.
_PRIVATE = frozenset({"message", "details", "body", "headers"})
_EMPTY: dict[str, Any] = {"message": "", "details": {}, "body": "", "headers": {}}


def serialize_error(error: GatherError) -> str:
    """Return JSON of the error's class, its safe message, and its plain attributes."""
    kept = {
        name: value
        for name, value in vars(error).items()
        if name not in _PRIVATE
        and not name.startswith("_")
        and isinstance(value, str | int | float | None)
    }
    return json.dumps({"type": type(error).__name__, "message": str(error), "attributes": kept})


def deserialize_error(text: str) -> GatherError:
    """Return the error again; one of an unknown class comes back as a plain `GatherError`."""
    kept = json.loads(text)
    found = getattr(errors, kept["type"], GatherError)
    cls = found if isinstance(found, type) and issubclass(found, GatherError) else GatherError
    error = cls.__new__(cls, kept["message"])
    error.args = (kept["message"],)
    # What was left out is empty rather than absent, so that reading it never fails.
    absent = _EMPTY if issubclass(cls, GatherAPIError) else {"body": ""}
    vars(error).update({**absent, **kept["attributes"]})
    return error


_REFUSED = range(300, 500)
_REQUEST_TIMEOUT = 408
_DUPLICATE = re.compile(r"duplicate|already|exist|conflict|unique", re.IGNORECASE)


class InterviewNotFound(Exception):  # noqa: N818 - a signal between our own modules
    """The server doesn't know the interview, so no row of the job can be invited."""

    def __init__(self, error: NotFoundError) -> None:
        super().__init__(str(error))
        self.error = error


def is_fatal(error: GatherError) -> bool:
    """Return whether every other row would fail the same way.

    A read-only key may be answered with 401 or with 403; the documentation
    contradicts itself. Source: /api-reference/credentials
    """
    return isinstance(
        error,
        AuthenticationError | PermissionDeniedError | ClientClosedError | ConfigurationError,
    )


def is_rejection(error: GatherError) -> bool:
    """Return whether a write was refused for good and surely not carried out."""
    if is_fatal(error):
        return False
    if isinstance(error, GatherAPIError):
        return (
            error.status in _REFUSED
            and error.status != _REQUEST_TIMEOUT
            and not isinstance(error, RateLimitedError)
        )
    return isinstance(error, InvalidRequestError)


def may_be_processed(error: GatherError) -> bool:
    """Return whether the server may have carried the request out, or may still do so."""
    return bool(getattr(error, "maybe_processed", False))


def suggests_duplicate(error: GatherError) -> bool:
    """Return whether the refusal may mean that the thing is there already.

    What the server answers to a duplicate is undocumented: 409, or a 400 whose
    words say so.
    """
    if isinstance(error, ConflictError):
        return True
    return isinstance(error, BadRequestError) and bool(
        _DUPLICATE.search(f"{error.code} {error.message} {error.details}")
    )


def names_interview(error: NotFoundError, interview_id: str, *, is_new: bool) -> bool:
    """Return whether it is the interview that was not found, rather than the person.

    Args:
        error: The answer to an invite.
        interview_id: The job's interview.
        is_new: Whether this run has just made the person, who is there therefore.

    Source: /guides/error-handling (details.resource and details.id of a 404)
    """
    resource = str(error.details.get("resource", "")).lower()
    if error.details.get("id") == interview_id:
        return True
    if "candidate" in resource:
        return False
    return "interview" in resource or is_new


def _reason_of(error: GatherError) -> object:
    """Return what is the same for all rows that are refused by one mistake of the job."""
    if isinstance(error, GatherAPIError):
        return error.status, error.code
    return type(error)


@frozen
class CircuitBreaker:
    """Counts failures in a row: refusals for one reason, and requests that fail otherwise."""

    threshold: int
    refusals: int = 0
    """Refusals with the same code and no success in between."""
    outages: int = 0
    """Failures that are no refusals, with no response in between that makes sense."""
    last: GatherError | None = None
    """The last of them."""

    @property
    def is_open(self) -> bool:
        """Whether to stop."""
        return max(self.refusals, self.outages) >= self.threshold

    def failed(self, error: GatherError) -> "CircuitBreaker":
        """Return the breaker after one more failure; once open, it stays so."""
        if self.is_open:
            return self
        if not is_rejection(error):
            return evolve(self, outages=self.outages + 1, last=error)
        is_same = self.last is not None and _reason_of(self.last) == _reason_of(error)
        # A refusal is a response: the server is there.
        return evolve(self, refusals=self.refusals + 1 if is_same else 1, outages=0, last=error)

    def responded(self) -> "CircuitBreaker":
        """Return the breaker after a response that shows that the server is there."""
        return self if self.is_open else evolve(self, outages=0)

    def succeeded(self) -> "CircuitBreaker":
        """Return the breaker after a success."""
        return self if self.is_open else CircuitBreaker(self.threshold)
