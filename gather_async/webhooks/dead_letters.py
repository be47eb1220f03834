"""Dead letters: what logs them and passes them on, and what replays and discards them."""

import asyncio
import builtins
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from inspect import isawaitable
from typing import Any, Final

from attrs import define, field, setters

from gather_async.clock import Clock, wait
from gather_async.errors import ConfigurationError
from gather_async.observability import log_fields
from gather_async.webhooks.inbox import ClaimedEvent, DeadLetter, HandlerFailure, Inbox
from gather_async.webhooks.runs import FRAME, STUBBORN, kind_of

__all__ = ["DeadLetters", "OnDeadLetter"]

_log = logging.getLogger("gather_async.webhooks")
_ALL: Final = 1_000_000  # letters
_LEAST: Final = 1.0  # seconds that callbacks have at a close, however long the handlers took

OnDeadLetter = Callable[[DeadLetter], object]
"""Gets each dead letter; may be async."""


def _check(_: object, __: object, callback: Any) -> None:
    if callback is not None and not callable(callback):
        raise ConfigurationError("on_dead_letter must be a function of one dead letter.")


@define(eq=False)
class DeadLetters:
    """The dead letters of a receiver: each is logged, and passed to its callback."""

    inbox: Inbox
    receivers: Sequence[str]
    """The receiver's name, then those under which it stored events before."""
    clock: Clock
    callback: OnDeadLetter | None = field(validator=_check, on_setattr=setters.validate)
    _calls: "set[asyncio.Task[None]]" = field(factory=set)

    async def list(self, limit: int = _ALL) -> Sequence[DeadLetter]:
        """Return them, oldest first, under whichever of the names their events were stored."""
        found = [
            letter
            for name in self.receivers
            for letter in await self.inbox.dead_letters(limit=limit, receiver=name)
        ]
        return sorted(found, key=lambda letter: letter.dead_at)[:limit]

    async def replay(self, letters: Collection[DeadLetter] | None) -> int:
        """Replay some, or all; return how many there were."""
        count = await self._change(self.inbox.replay, letters)
        if count:  # some may wait under a former name, where a worker looks once a minute
            name, *former = self.receivers
            await self.inbox.announce(name, {}, former=former, keep_for=0.0)
        return count

    async def discard(self, letters: Collection[DeadLetter] | None) -> int:
        """Discard some, or all; return how many there were."""
        return await self._change(self.inbox.discard, letters)

    async def _change(
        self, change: Callable[..., Awaitable[int]], letters: Collection[DeadLetter] | None
    ) -> int:
        """Change letters, those of one event together."""
        by_key: dict[str, builtins.list[str]] = {}
        for letter in await self.list() if letters is None else letters:
            by_key.setdefault(letter.key, []).append(letter.handler)
        done = [await change([key], handlers=names) * len(names) for key, names in by_key.items()]
        return sum(done)

    def publish(self, claimed: ClaimedEvent, handler: str, failure: HandlerFailure) -> None:
        """Publish a letter that is stored by now."""
        kind = kind_of(failure.error)
        _log.error(
            "The webhook event %s is a dead letter of the handler %s, after %d failures: "
            "replay or discard it. The last was %s%s",
            claimed.event.key,
            handler,
            failure.failures,
            kind,
            "".join(FRAME.findall(failure.error)),
            extra=log_fields(
                event=claimed.event.name, handler=handler, failures=failure.failures, error=kind
            ),
        )
        if self.callback is None:
            return
        letter = DeadLetter(
            event=claimed.event.decode(),
            handler=handler,
            key=claimed.event.key,
            receiver=claimed.event.receiver,
            failures=failure.failures,
            dead_at=self.clock.wall(),
            error=failure.error,
        )
        call = asyncio.create_task(_publish(self.callback, letter), name="on_dead_letter")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def wait_idle(self, until: float) -> None:
        """Return once no callback runs; one that runs for longer is cancelled.

        Args:
            until: By the monotonic clock; a second is left to them at least.
        """
        calls, idle = tuple(self._calls), asyncio.Event()
        if not calls:
            return
        for call in calls:
            call.add_done_callback(lambda _: None if self._calls else idle.set())
        try:
            if await wait(self.clock, idle, max(until - self.clock.monotonic(), _LEAST)):
                return
            _log.error("on_dead_letter took too long, and is cancelled at the close")
        finally:
            for call in calls:
                call.cancel()
        await asyncio.wait(calls, timeout=STUBBORN)


async def _publish(callback: OnDeadLetter, letter: DeadLetter) -> None:
    try:
        result = callback(letter)
        if isawaitable(result):
            await result
    except (Exception, SystemExit) as error:  # the latter would stop the whole server
        extra = log_fields(event=letter.event.event, handler=letter.handler, error=error)
        _log.exception("on_dead_letter failed", extra=extra)
