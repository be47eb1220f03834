"""The background worker: takes due tasks from the inbox and runs their handlers."""

import asyncio
import contextlib
import logging
import math
import random
import traceback
from collections.abc import Mapping
from typing import Final

from attrs import define, field, frozen

from gather_async.clock import Clock, wait
from gather_async.protocol.retry import backoff
from gather_async.validators import Number
from gather_async.webhooks.handlers import Handler
from gather_async.webhooks.inbox import HandlerJob, Inbox

__all__ = ["HandlerPolicy", "Worker", "run_handler"]

_LOG = logging.getLogger("gather_async.webhooks")

_STUBBORN = 5.0  # real seconds to wait for a handler that swallows its cancellation


async def run_handler(
    handler: Handler, task: HandlerJob, timeout: float, clock: Clock
) -> str | None:
    """Run a handler; return None if it succeeded, else the failure with its traceback.

    Cancelling it cancels the handler and waits for its end.
    """
    run = asyncio.create_task(_call(handler, task), name=f"webhook handler {handler.name}")
    deadline = asyncio.Event()

    def expire() -> None:
        deadline.set()
        run.cancel()

    timer = clock.call_later(timeout, expire)
    try:
        await asyncio.wait([run])
    except asyncio.CancelledError:
        run.cancel()
        await asyncio.wait([run], timeout=_STUBBORN)
        raise
    finally:
        timer.cancel()
    failure = _failure_of(run, timeout if deadline.is_set() else None)
    if failure is not None:
        _LOG.warning(
            "The webhook handler %s failed on %s: %s (failure %d); the debug log says where",
            handler.name,
            task.event.key,
            failure.partition("\n")[0].partition(":")[0],
            task.failures + 1,
        )
        _LOG.debug("%s", failure)
    return failure


async def _call(handler: Handler, task: HandlerJob) -> None:
    await handler.function(task.event.decode())


def _failure_of(run: "asyncio.Task[None]", timeout: float | None) -> str | None:
    """Return what went wrong in a run that is over: its kind first, then the traceback."""
    if run.cancelled():
        if timeout is not None:
            return f"TimeoutError: it took longer than {timeout:g} seconds"
        return "CancelledError: it was cancelled from within"
    error = run.exception()
    if error is None:
        return None
    return f"{type(error).__name__}: {error}\n" + "".join(traceback.format_exception(error))


_LONGEST = 3600.0  # inboxes take a time further ahead for a clock that went back


_COUNT = Number(least=1, whole=True, owner="HandlerPolicy")
_SECONDS = Number(above=0, unit="seconds", owner="HandlerPolicy")
_AT_MOST_AN_HOUR = Number(above=0, most=_LONGEST, unit="seconds", owner="HandlerPolicy")


@frozen(kw_only=True)
class HandlerPolicy:
    """How handlers are run.

    Raises:
        ConfigurationError: A number is out of range.
    """

    concurrency: int = field(default=10, validator=_COUNT)
    """Handlers that run at once."""
    timeout: float = field(default=60.0, validator=_SECONDS)
    """Seconds that one run may take; it is cancelled then, which counts as a failure."""
    attempts: int = field(default=8, validator=_COUNT)
    """Failed runs after which the event is a dead letter of this handler."""
    base: float = field(default=1.0, validator=_SECONDS)
    """Seconds: the longest pause after the first failure; it doubles with each."""
    cap: float = field(default=600.0, validator=_AT_MOST_AN_HOUR)
    """Seconds: the longest pause."""
    lease: float = field(default=30.0, validator=_AT_MOST_AN_HOUR)
    """Seconds after which the work of a process that died is done by another, or by its
    successor, unless the inbox finds out earlier. A living one renews its leases."""
    drain: float = field(default=20.0, validator=_SECONDS)
    """Seconds that closing waits for handlers before it cancels them."""
    poll: float = field(default=1.0, validator=_SECONDS)
    """Seconds between looks for events that another process stored in a shared inbox."""

    def pause(self, failures: int, draw: float) -> float | None:
        """Return seconds to wait after a failure; None: it was the last.

        Args:
            failures: Failed runs, this one included.
            draw: A random number from 0 to 1: half of the pause is jitter.
        """
        if failures >= self.attempts:
            return None
        return backoff(failures, base=self.base, cap=self.cap, draw=0.5 + draw / 2)


_CRASHES: Final = 25  # an event that kills the process this often is not tried for ever
_PRUNE_EVERY: Final = 3600.0
_STORAGE_PAUSE: Final = 1.0


@define(eq=False)
class Worker:
    """One loop that claims, and a bounded number of handlers that run."""

    inbox: Inbox
    handlers: Mapping[str, Handler]
    handling: HandlerPolicy
    clock: Clock
    rng: random.Random
    _wake: asyncio.Event = field(factory=asyncio.Event)
    _running: "dict[asyncio.Task[None], HandlerJob]" = field(factory=dict)
    _main: "asyncio.Task[None] | None" = None
    _is_draining: bool = False
    _next_prune: float = -math.inf
    _next_renewal: float = math.inf

    def start(self) -> None:
        """Begin to work, in the running loop."""
        self.forget()
        self._main = asyncio.create_task(self._work(), name="gather-async-webhooks")

    def forget(self) -> None:
        """Start anew after the loop that this worked in is gone."""
        self._wake, self._main, self._is_draining = asyncio.Event(), None, False
        self._running.clear()

    def wake(self) -> None:
        """Look for tasks now."""
        self._wake.set()

    async def drain(self) -> None:
        """Finish what is due, for ``handling.drain`` seconds at most, then cancel the rest.

        Cancelling it cancels the handlers at once. Tasks that were cancelled are due
        again at the next start, if the inbox survives.
        """
        if self._main is None:
            return
        self._is_draining = True
        self.wake()
        timer = self.clock.call_later(self.handling.drain, self._main.cancel)
        try:
            await asyncio.wait([self._main])
        finally:
            timer.cancel()
            await self._abort()

    async def _abort(self) -> None:
        """Cancel what still runs, and wait until it has given its tasks back."""
        assert self._main is not None  # noqa: S101 - it was started
        rest = [task for task in (self._main, *self._running) if not task.done()]
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)
        self._main = None

    async def _work(self) -> None:
        await self._report_orphans()
        while True:
            self._wake.clear()
            try:
                next_due = await self._claim()
                await self._keep_house()
            except Exception:
                _LOG.exception("The webhook inbox failed; it is tried again")
                next_due = self.clock.wall() + _STORAGE_PAUSE
            if self._is_draining and not self._running and not self._waits_for(next_due):
                return
            await self._pause(next_due)

    async def _claim(self) -> float | None:
        """Start what is due and has room; return when the next is due."""
        room = self.handling.concurrency - len(self._running)
        if not room or not self.handlers:
            return None
        now = self.clock.wall()
        claimed = await self.inbox.claim(
            self.handlers, limit=room, now=now, until=now + self._lease()
        )
        if claimed.tasks and not self._running and self.inbox.is_shared:
            self._next_renewal = self.clock.monotonic() + self._lease() / 3
        for task in claimed.tasks:
            self._start(task)
        return claimed.next_due

    def _start(self, task: HandlerJob) -> None:
        """Run a task, unless it runs here already: a loop that was blocked loses its lease."""
        for running, older in self._running.items():
            if older.event.key == task.event.key and older.handler == task.handler:
                self._running[running] = task
                return
        running = asyncio.create_task(self._run(task), name=f"webhook task {task.handler}")
        self._running[running] = task
        running.add_done_callback(self._forget)

    def _lease(self) -> float:
        return self.handling.lease if self.inbox.is_shared else math.inf

    def _forget(self, running: "asyncio.Task[None]") -> None:
        del self._running[running]
        self.wake()

    def _waits_for(self, next_due: float | None) -> bool:
        """Tell whether draining waits for that: what is due, or would be lost with the process."""
        if next_due is None or next_due == math.inf:
            return False
        return not self.inbox.is_shared or next_due <= self.clock.wall()

    async def _keep_house(self) -> None:
        """Renew leases and forget old events, if it is time."""
        now = self.clock.monotonic()
        if self._running and now >= self._next_renewal:
            self._next_renewal = now + self._lease() / 3
            until = self.clock.wall() + self._lease()
            await self.inbox.renew(tuple(self._running.values()), until=until)
        if now >= self._next_prune:
            self._next_prune = now + _PRUNE_EVERY
            await self.inbox.prune(now=self.clock.wall())

    async def _pause(self, next_due: float | None) -> None:
        """Wait until something is due or somebody wakes us."""
        waits = [] if next_due is None else [next_due - self.clock.wall()]
        if self.inbox.is_shared:
            waits.append(self.handling.poll)
            if self._running:
                waits.append(self._next_renewal - self.clock.monotonic())
        await wait(self.clock, self._wake, min(waits, default=math.inf))

    async def _run(self, task: HandlerJob) -> None:
        """Run one handler, and report what came of it."""
        try:
            if task.crashes >= _CRASHES:
                failure: str | None = f"The process died {task.crashes} times on this event."
                pause = None
            else:
                failure = await run_handler(
                    self.handlers[task.handler], task, self.handling.timeout, self.clock
                )
                pause = self.handling.pause(task.failures + 1, self.rng.random())
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # the lease ends by itself
                await self.inbox.release(self._current())
            raise
        await self._report(failure, pause)

    def _current(self) -> HandlerJob:
        """Return the task that the running asyncio task holds, under its latest claim."""
        this = asyncio.current_task()
        return next(task for running, task in self._running.items() if running is this)

    async def _report(self, failure: str | None, pause: float | None) -> None:
        """Tell the inbox, again and again: a success must not be forgotten for a full disk."""
        while True:
            now, task = self.clock.wall(), self._current()
            try:
                if failure is None:
                    await self.inbox.succeed(task, now=now)
                elif pause is None:
                    await self.inbox.bury(task, now=now, error=failure)
                else:
                    await self.inbox.retry(task, due_at=now + pause, error=failure)
                return
            except Exception:
                _LOG.exception("The webhook inbox failed; it is tried again")
            await self.clock.sleep(_STORAGE_PAUSE)

    async def _report_orphans(self) -> None:
        """Say which events wait for handlers that are not here."""
        with contextlib.suppress(Exception):
            waiting = await self.inbox.waiting()
            for name in sorted(waiting.keys() - self.handlers.keys()):
                _LOG.warning(
                    "%d webhook events wait for the handler %s, which is not registered here: "
                    "register it, or give the new function on(..., name=%r).",
                    waiting[name],
                    name,
                    name,
                )
