"""The handlers of all processes of a receiver, which share an inbox."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import define, field

from gather_async.webhooks.inbox import Inbox

__all__ = ["KnownHandlers"]

_ANNOUNCE_EVERY: Final = 60.0  # far below the shortest time for which handlers are kept


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

    async def announce(
        self,
        inbox: Inbox,
        receivers: Sequence[str],
        here: Mapping[str, frozenset[str]],
        *,
        keep_for: float,
        now: float,
    ) -> None:
        """Record in the inbox which handlers exist, if it is time or there is a new one.

        Args:
            inbox: Where to.
            receivers: The receiver's name, then its former ones.
            here: The handlers of this process.
            keep_for: Seconds, as `Inbox.announce` has them.
            now: By the monotonic clock.
        """
        is_due = self.are_lost or here != self._announced or now >= self._next_at
        if not here or not is_due:
            return
        handlers = {**self._lost, **here}
        await inbox.announce(receivers[0], handlers, former=receivers[1:], keep_for=keep_for)
        self._announced, self._lost, self.are_lost = here, {}, False
        self._next_at = now + min(_ANNOUNCE_EVERY, keep_for / 3)

    def record(self, found: Mapping[str, frozenset[str]], now: float) -> None:
        """Record what the inbox says of all handlers."""
        if self._announced.keys() - found.keys():
            self._lost = {name: each for name, each in self.events.items() if name not in found}
            self.are_lost = True
        self.events, self.at = {**self._lost, **found}, now
