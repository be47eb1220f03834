"""The background worker: takes due tasks from the inbox and runs their handlers."""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Mapping
from typing import Final

from attrs import define, field

from gather_async.clock import Clock
from gather_async.webhooks.handler_run import run_handler
from gather_async.webhooks.handlers import Handler
from gather_async.webhooks.handling import Handling
from gather_async.webhooks.inbox import Inbox, Task

__all__ = ["Worker"]

_log = logging.getLogger("gather_async.webhooks")

_CRASHES: Final = 25  # an event that kills the process this often is not tried for ever
_PRUNE_EVERY: Final = 3600.0
_STORAGE_PAUSE: Final = 1.0


@define(eq=False)
class Worker:
    """One loop that claims, and a bounded number of handlers that run."""

    inbox: Inbox
    handlers: Mapping[str, Handler]
    handling: Handling
    clock: Clock
    rng: random.Random
    _wake: asyncio.Event = field(factory=asyncio.Event)
    _running: "dict[asyncio.Task[None], Task]" = field(factory=dict)
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
                _log.exception("The webhook inbox failed; it is tried again")
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

    def _start(self, task: Task) -> None:
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
        wait = min(waits, default=math.inf)
        if wait == math.inf:
            await self._wake.wait()
            return
        timer = self.clock.call_later(max(wait, 0.0), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    async def _run(self, task: Task) -> None:
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

    def _current(self) -> Task:
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
                _log.exception("The webhook inbox failed; it is tried again")
            await self.clock.sleep(_STORAGE_PAUSE)

    async def _report_orphans(self) -> None:
        """Say which events wait for handlers that are not here."""
        with contextlib.suppress(Exception):
            waiting = await self.inbox.waiting()
            for name in sorted(waiting.keys() - self.handlers.keys()):
                _log.warning(
                    "%d webhook events wait for the handler %s, which is not registered here: "
                    "register it, or give the new function on(..., name=%r).",
                    waiting[name],
                    name,
                    name,
                )
