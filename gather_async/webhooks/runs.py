"""Runs of handlers: the policy, one run, the events held meanwhile, and who else wants them."""

import asyncio
import contextvars
import logging
import math
import re
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Final

from attrs import asdict, define, field, frozen

from gather_async.clock import Clock, Timer
from gather_async.errors import AlreadyHandledError
from gather_async.observability import log_fields
from gather_async.protocol.retry import backoff
from gather_async.validators import Number
from gather_async.webhooks.events import is_wanted
from gather_async.webhooks.handlers import Handler
from gather_async.webhooks.inbox import ClaimedEvent, ClaimReport, HandlerFailure

__all__ = [
    "CURRENT_RUN",
    "FRAME",
    "HandlerEnded",
    "HandlerPolicy",
    "HeldEvent",
    "KnownHandlers",
    "STUBBORN",
    "StorageLog",
    "kind_of",
    "last_report",
    "run_handler",
    "wanted_here",
]

_log = logging.getLogger("gather_async.webhooks")

CURRENT_RUN: Final = contextvars.ContextVar[tuple[ClaimedEvent, str]]("gather_async_webhook_run")
"""The claim and the handler of the code that runs."""

STUBBORN: Final = 5.0  # real seconds to wait for a handler that swallows its cancellation
_LONGEST: Final = 3600.0  # inboxes take a time further ahead for a clock that went back
_LOSS_PAUSE: Final = 1.0  # seconds; an inbox that keeps no handlers must not be asked without end
_COUNT: Final = Number(least=1, whole=True, owner="HandlerPolicy")
_SECONDS: Final = Number(above=0, unit="seconds", owner="HandlerPolicy")
_AT_MOST_AN_HOUR: Final = Number(above=0, most=_LONGEST, unit="seconds", owner="HandlerPolicy")


@frozen(kw_only=True)
class HandlerPolicy:
    """Policy for running handlers.

    Raises:
        ConfigurationError: A number is out of range.
    """

    concurrency: int = field(default=10, validator=_COUNT)
    """Runs at once, in equal shares for the handlers, one at least for each: a handler that
    hangs keeps its own share busy, never that of another."""
    timeout: float = field(default=60.0, validator=_SECONDS)
    """Seconds that one run may take; it is cancelled then, which counts as a failure."""
    attempts: int = field(default=8, validator=_COUNT)
    """Failed runs after which the event is a dead letter of this handler."""
    base: float = field(default=1.0, validator=_SECONDS)
    """Seconds: the longest pause after the first failure; it doubles with each."""
    cap: float = field(default=600.0, validator=_AT_MOST_AN_HOUR)
    """Seconds: the longest pause."""
    lease: float = field(default=30.0, validator=_AT_MOST_AN_HOUR)
    """Seconds after which the events of a process that died are claimed by another, or by its
    successor, unless the inbox finds out earlier. A living one renews its leases."""
    drain: float = field(default=20.0, validator=_SECONDS)
    """Seconds that closing waits for handlers before it cancels them."""
    poll: float = field(default=1.0, validator=_SECONDS)
    """Seconds between polls for events that another process stored in a shared inbox."""
    keep_handlers: float = field(default=3600.0, validator=_SECONDS)
    """Seconds for which events of a shared inbox wait for a handler whose processes are gone,
    as in a restart; then they are over without it."""

    def share(self, handlers: int) -> int:
        """Return how many runs at once each of so many handlers may have."""
        return max(1, self.concurrency // max(1, handlers))

    def pause(self, failures: int, draw: float) -> float | None:
        """Return seconds to wait after a failure; None: it was the last.

        Args:
            failures: Failed runs, this one included.
            draw: A random number from 0 to 1: half of the pause is jitter.
        """
        if failures >= self.attempts:
            return None
        return backoff(failures, base=self.base, cap=self.cap, draw=0.5 + draw / 2)


@define
class StorageLog:
    """The log of an inbox's outages: a line as one begins, with the failure, and one at its end."""

    is_away: bool = False
    """Whether the last thing that was asked of it failed."""

    def failed(self, error: Exception) -> None:
        """Record a failure, after which it is tried again."""
        if not self.is_away:
            text = "The webhook inbox failed; it is tried again until it works"
            _log.error(text, exc_info=error, extra=log_fields(error=error))
        self.is_away = True

    def succeeded(self) -> None:
        """Record that it does what it is asked."""
        if self.is_away:
            _log.warning("The webhook inbox works again")
        self.is_away = False


@frozen
class _Failed:
    """The failures of a handler on a held event."""

    failures: int
    error: str = field(repr=False)
    due_at: float
    """By the monotonic clock."""


@define(eq=False)
class HeldEvent:
    """An event that this process has claimed, and the runs of its handlers."""

    claimed: ClaimedEvent
    valid_until: float
    """By the monotonic clock: another process may hold the event from then on."""
    is_lost: bool = False
    """Whether another process holds it by now."""
    running: "dict[str, asyncio.Task[None]]" = field(factory=dict)
    lined_up: set[str] = field(factory=set)
    """Handlers that wait for a slot of their share."""
    done: set[str] = field(factory=set)
    """Handlers whose success is not recorded yet."""
    ended: set[str] = field(factory=set)
    """Handlers that must not get it again."""
    failed: dict[str, _Failed] = field(factory=dict)
    dead: dict[str, HandlerFailure] = field(factory=dict)
    timers: dict[str, Timer] = field(factory=dict)

    @property
    def is_idle(self) -> bool:
        """Whether no handler runs or is about to."""
        return not self.running and not self.lined_up

    def record_failure(self, handler: str, error: str, pause: float | None, now: float) -> None:
        """Count a failure; with a pause of None it was the last."""
        failures = self.failures_of(handler) + 1
        if pause is None:
            self.failed.pop(handler, None)
            self.ended.add(handler)
            self.dead[handler] = HandlerFailure(failures=failures, error=error)
        else:
            self.failed[handler] = _Failed(failures, error, now + pause)

    def record_success(self, handler: str) -> None:
        """Count a success that is not recorded in the inbox yet."""
        self.failed.pop(handler, None)
        self.ended.add(handler)
        self.done.add(handler)

    def failures_of(self, handler: str) -> int:
        """Return how often a handler failed on this event."""
        if handler in self.failed:
            return self.failed[handler].failures
        before = self.claimed.failures.get(handler)
        return 0 if before is None else before.failures

    def cancel_timers(self) -> None:
        """Leave the retries to the next claim."""
        while self.timers:
            self.timers.popitem()[1].cancel()

    def report(self, *, now: float, due_in: float | None, waits_for: str = "") -> ClaimReport:
        """Return the report that ends the claim."""
        return ClaimReport(
            claimed=self.claimed,
            done=tuple(self.done),
            failed={
                name: HandlerFailure(
                    failures=each.failures, error=each.error, retry_in=max(each.due_at - now, 0.0)
                )
                for name, each in self.failed.items()
            },
            dead=dict(self.dead),
            due_in=due_in,
            waits_for=waits_for,
        )


@define
class KnownHandlers:
    """The handlers of a receiver's processes, by name the events that each wants.

    An inbox may lose them with all that it had: a file that was deleted, a server that
    restarted empty. The first process that finds out announces those of the others with its
    own, so that no event is over without them.
    """

    events: Mapping[str, frozenset[str]] = field(factory=dict)
    """As the inbox last said, and what it lost since."""
    at: float = -math.inf
    """When it said so, by the monotonic clock."""
    are_lost: bool = False
    """Whether the inbox lost them, and nothing was announced since."""
    _announced: Mapping[str, frozenset[str]] = field(factory=dict)
    _lost: Mapping[str, frozenset[str]] = field(factory=dict)
    _next_at: float = -math.inf
    _lost_at: float = -math.inf

    def due(self, here: Mapping[str, frozenset[str]], now: float) -> Mapping[str, frozenset[str]]:
        """Return what to announce with the handlers of this process; nothing if it isn't time."""
        is_due = self.are_lost or here != self._announced or now >= self._next_at
        return {**self._lost, **here} if here and is_due else {}

    def announced(self, here: Mapping[str, frozenset[str]], next_at: float) -> None:
        """Record that the inbox has them, and when it is time again."""
        self._announced, self._lost, self.are_lost, self._next_at = here, {}, False, next_at

    def record(self, found: Mapping[str, frozenset[str]], now: float) -> None:
        """Record what the inbox says of all handlers."""
        if self._announced.keys() - found.keys():
            self._lost = {name: each for name, each in self.events.items() if name not in found}
            if now >= self._lost_at + _LOSS_PAUSE:
                self._lost_at, self.are_lost = now, True
        self.events, self.at = {**self._lost, **found}, now


@frozen(kw_only=True)
class HandlerEnded:
    """A run of a webhook's handler is over. It holds nothing of what the event is about."""

    event: str
    """The event's name, such as ``candidate_interview.completed``."""
    handler: str
    lag: float
    """Seconds from the receipt of the event to the begin of the run, by the wall clocks of the
    processes that received and ran it."""
    seconds: float
    """That the run took."""
    failures: int
    """Failed runs of this handler on this event, this one included."""
    error: str | None
    """The class of the failure, such as ``ValueError``; None: it succeeded."""


async def run_handler(
    handler: Handler,
    claimed: ClaimedEvent,
    *,
    failures: int,
    timeout: float,
    clock: Clock,
    on_end: Callable[[HandlerEnded], object],
) -> str | None:
    """Run a handler; return None if it succeeded, else the failure with its traceback.

    Cancelling it cancels the handler and waits for its end.
    """
    lag, began = max(0.0, clock.wall() - claimed.event.received_at), clock.monotonic()
    run = asyncio.create_task(_call(handler, claimed), name=f"webhook handler {handler.name}")
    deadline = asyncio.Event()

    def expire() -> None:
        deadline.set()
        run.cancel()

    timer = clock.call_later(timeout, expire)
    try:
        await asyncio.wait([run])
    except asyncio.CancelledError:
        run.cancel()
        await asyncio.wait([run], timeout=STUBBORN)
        raise
    finally:
        timer.cancel()
    failure = _failure_of(run, timeout if deadline.is_set() else None)
    ended = HandlerEnded(
        event=claimed.event.name,
        handler=handler.name,
        lag=lag,
        seconds=clock.monotonic() - began,
        failures=failures if failure is None else failures + 1,
        error=None if failure is None else kind_of(failure),
    )
    extra = log_fields(**asdict(ended))
    if failure is None:
        done = "The webhook handler %s is done with %s"
        _log.debug(done, handler.name, claimed.event.key, extra=extra)
    else:
        _log.warning(
            "The webhook handler %s failed on %s: %s (failure %d); the debug log has all",
            handler.name,
            claimed.event.key,
            f"{ended.error}{_place_of(failure)}",
            ended.failures,
            extra=extra,
        )
        _log.debug("%s", failure, extra=extra)
    on_end(ended)
    return failure


class _ExitError(Exception):
    """A handler asked the interpreter to exit; asyncio would stop the whole server."""


async def _call(handler: Handler, claimed: ClaimedEvent) -> None:
    CURRENT_RUN.set((claimed, handler.name))
    try:
        await handler.function(claimed.event.decode())
    except SystemExit as error:
        raise _ExitError(f"the handler called sys.exit({error.code!r})") from error


def _failure_of(run: "asyncio.Task[None]", timeout: float | None) -> str | None:
    """Return what went wrong in a run that is over: its kind first, then the traceback."""
    if run.cancelled() and timeout is not None:
        return f"TimeoutError: it took longer than {timeout:g} seconds"
    if run.cancelled():
        return "CancelledError: it was cancelled from within"
    error = run.exception()
    if error is None or isinstance(error, AlreadyHandledError):
        return None
    kind = "SystemExit" if isinstance(error, _ExitError) else type(error).__name__
    try:
        said = str(error)
    except Exception:
        said = "its text can't be made"
    return f"{kind}: {said}\n" + "".join(traceback.format_exception(error))


# Of a traceback a log gets the places: messages and lines of code may hold whom it is about.
FRAME: Final = re.compile(r'\n  File "[^"\n]*", line \d+, in [\w<>.]+(?=\n)')


def _place_of(failure: str) -> str:
    """Return where in the handler a failure began, and where it was raised if elsewhere."""
    frames = [each.strip() for each in FRAME.findall(failure) if not each.endswith("in _call")]
    return "".join(f"; {place}" for place in dict.fromkeys(frames[:1] + frames[-1:]))


def kind_of(failure: str) -> str:
    """Return the class of a failure."""
    return failure.partition("\n")[0].partition(":")[0]


def wanted_here(handlers: Mapping[str, Handler], event: str, ended: Collection[str]) -> list[str]:
    """Return which of these handlers want an event, without those that must not get it again."""
    return [
        name
        for name, handler in handlers.items()
        if name not in ended and is_wanted(event, handler.events)
    ]


def last_report(
    held: HeldEvent,
    handlers: Mapping[str, Handler],
    known: Mapping[str, frozenset[str]],
    *,
    now: float,
    is_new: bool,
) -> ClaimReport:
    """Return the report of an event that has nothing to run here now.

    Args:
        held: The event.
        handlers: This receiver's handlers.
        known: The handlers of all its processes, and the events that each wants.
        now: By the monotonic clock.
        is_new: Whether none of the handlers here was run under this claim.
    """
    event, claimed = held.claimed.event.name, held.claimed
    pauses = {name: each.due_at - now for name, each in held.failed.items()}
    for name in wanted_here(handlers, event, held.ended):
        pauses.setdefault(name, claimed.retry_in(name))
    if pauses:
        return held.report(now=now, due_in=max(min(pauses.values()), 0.0))
    others = {
        name: claimed.retry_in(name)
        for name, wanted in known.items()
        if name not in held.ended and name not in handlers and is_wanted(event, wanted)
    }
    if others:
        first = min(others, key=lambda name: others[name])
        return held.report(now=now, due_in=others[first], waits_for=first)
    if is_new and not held.ended:
        return ClaimReport(claimed=claimed, is_ignored=True)
    return held.report(now=now, due_in=None)
