"""The life cycle of a receiver: its states, and all that leads from one to another."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from enum import Enum

from attrs import define, field

from gather_async.errors import ClientClosedError
from gather_async.loops import LoopOwner, close_surely
from gather_async.observability import log_fields
from gather_async.webhooks.dead_letters import DeadLetters
from gather_async.webhooks.inbox import EventState
from gather_async.webhooks.worker import Worker

__all__ = ["Lifecycle", "ReceiverState"]

_log = logging.getLogger("gather_async.webhooks")


class ReceiverState(Enum):
    """The state of a receiver.

    A start leads from IDLE or CLOSED through STARTING to RUNNING, and back where it fails or
    is cancelled. A close leads from anywhere through CLOSING to CLOSED, whatever fails. A loop
    that ended leads to IDLE, or, if the receiver was closing, to CLOSED.
    """

    IDLE = "not started"
    """Deliveries are stored, and wait."""
    STARTING = "starting"
    """The same, while the inbox is opened."""
    RUNNING = "running"
    """Deliveries are stored and handled."""
    CLOSING = "closing"
    """Deliveries are refused, while handlers finish what is due."""
    CLOSED = "closed"
    """Deliveries are refused."""


@define(eq=False)
class Lifecycle:
    """All changes of a receiver's state, in any order of starts, closes and cancellations."""

    worker: Worker
    dead_letters: DeadLetters
    owner: LoopOwner = field(factory=lambda: LoopOwner("webhook receiver", until_closed=True))
    state: ReceiverState = ReceiverState.IDLE
    _before: ReceiverState = ReceiverState.IDLE
    _opening: "asyncio.Task[None] | None" = None
    """The latest start's; it ends before another begins."""
    _is_unattended: bool = False
    """Whether a delivery started it, and no one has taken that over."""
    _closers: list[object] = field(factory=list)
    """The calls that close it; of a loop that ended there may be others."""

    @property
    def is_up(self) -> bool:
        """Whether it is running, or about to be."""
        return self.state in (ReceiverState.STARTING, ReceiverState.RUNNING)

    def forget_loop(self) -> None:
        """Forget a loop that ended without a close."""
        is_closing = self.state is ReceiverState.CLOSING
        self.state = ReceiverState.CLOSED if is_closing else ReceiverState.IDLE
        self._opening, self._closers = None, []
        self.owner.leave()
        self.worker.forget()

    async def start(self) -> None:
        """Start, or take over what a delivery started; return if it is closed meanwhile.

        Raises:
            ClientClosedError: It is running already, or closing.
            Exception: The inbox can't be opened.
        """
        opening = self._opening
        if self.state is ReceiverState.CLOSING:
            raise ClientClosedError("This receiver is closing: start it when it is closed.")
        if opening is not None and self.is_up and self._is_unattended:
            self._is_unattended = False
        elif not self.is_up:
            opening = self._begin(is_unattended=False)
        else:
            raise ClientClosedError(f"This receiver is {self.state.value} already: start it once.")
        if self.state is ReceiverState.STARTING:
            await self._finish(opening)

    async def start_unattended(self) -> None:
        """Start for a delivery, and log what goes wrong; cancelled, the start goes on."""
        await asyncio.wait([self._begin(is_unattended=True)])

    async def aclose(self) -> None:
        """End a start that is under way, drain the worker and close the inbox, whatever fails."""
        ends = self.worker.clock.monotonic() + self.worker.policy.drain
        self.owner.enter()
        self.state, closers = ReceiverState.CLOSING, self._closers
        closers.append(asyncio.current_task())
        async with contextlib.AsyncExitStack() as last_first:
            last_first.callback(self._closed, closers)
            last_first.push_async_callback(close_surely, self.worker.inbox.aclose)
            last_first.push_async_callback(self._report_lost)
            last_first.callback(lambda: self._replay_listeners.discard(self.worker.wake))
            last_first.push_async_callback(self.dead_letters.wait_idle, ends)
            last_first.push_async_callback(self.worker.drain)
            await close_surely(self._stop_opening)

    def _closed(self, closers: list[object]) -> None:
        closers.pop()
        if not closers and closers is self._closers:
            self.state = ReceiverState.CLOSED
            self.owner.leave()

    def _begin(self, *, is_unattended: bool) -> "asyncio.Task[None]":
        self._before, self.state = self.state, ReceiverState.STARTING
        self._is_unattended = is_unattended
        self.owner.enter()
        opening = asyncio.create_task(self._open(), name="webhook receiver")
        self._opening = opening
        # Called before those go on who wait for its end, so that they find the state as it is.
        opening.add_done_callback(self._opened)
        return opening

    async def _open(self) -> None:
        try:
            await self.worker.prepare()
        except BaseException:
            await self._undo()
            raise

    async def _undo(self) -> None:
        """Close what a start opened that came to nothing."""
        if self.worker.inbox.is_shared:  # else the inbox keeps what it has for the next start
            with contextlib.suppress(Exception):
                await close_surely(self.worker.inbox.aclose)

    def _opened(self, opening: "asyncio.Task[None]") -> None:
        error = None if opening.cancelled() else opening.exception()
        if error is not None and self._is_unattended:
            extra = log_fields(error=error)
            _log.error("The webhook receiver can't start: %s", error, extra=extra)
        if error is not None or opening.cancelled():
            self._go_back(opening)
        elif self._is_unattended:
            self._run(opening)

    async def _finish(self, opening: "asyncio.Task[None]") -> None:
        """Run once the inbox is open; cancelled, leave all as it was."""
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            if opening.cancel():
                opening.add_done_callback(self._go_back)
                await asyncio.wait([opening])
            else:
                # In this very step, as a second cancellation may come with the next.
                self._go_back(opening)
                if not self.is_up:
                    await self._undo()
            raise
        if not opening.cancelled():
            opening.result()
            self._run(opening)

    async def _stop_opening(self) -> None:
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait([self._opening])

    def _run(self, opening: "asyncio.Task[None]") -> None:
        if self._opening is opening and self.state is ReceiverState.STARTING:
            self.worker.start()
            self._replay_listeners.add(self.worker.wake)
            self.state = ReceiverState.RUNNING

    def _go_back(self, opening: "asyncio.Task[None]") -> None:
        if self._opening is opening and self.state is ReceiverState.STARTING:
            self.state = self._before
            self.owner.leave()

    async def _report_lost(self) -> None:
        if self.worker.inbox.is_shared:
            return
        counts = await self.worker.inbox.counts()
        if lost := counts.get(EventState.WAITING, 0):
            extra = log_fields(lost=lost)
            _log.error("%d unfinished events are lost with memory", lost, extra=extra)

    @property
    def _replay_listeners(self) -> set[Callable[[], None]]:
        found: set[Callable[[], None]] = getattr(self.worker.inbox, "replay_listeners", set())
        return found
