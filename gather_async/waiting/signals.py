"""The way of webhooks to the waiting calls."""

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

__all__ = ["Listener", "MOST_REMEMBERED", "RecentEvents", "Signals", "subscribe_weakly"]

MOST_REMEMBERED = 10_000  # ids: a megabyte; a burst of events for a whole account fits
_REMEMBERED_FOR = 300.0  # seconds: a wait may begin that long after its event came

Listener = Callable[[str, frozenset[str]], None]
"""Gets an event's name, such as ``question.audio_generated``, and all ids in its data."""


class Signals(Protocol):
    """A source of events: a `WebhookReceiver`, or your own.

    One may serve many clients. Listeners may be called in any thread and any event
    loop: a client hands the event over to the loop in which its calls wait.
    """

    @property
    def alive(self) -> bool:
        """Whether events arrive at present; while they do, polling is slow."""
        ...

    def subscribe(self, listener: Listener, /) -> Callable[[], None]:
        """Call the listener for each event from now on; return what ends that.

        The listener returns at once and never raises.
        """
        ...


class RecentEvents:
    """A short memory of ids that events named, for waits that begin after the event."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: OrderedDict[str, float] = OrderedDict()

    def note(self, id: str, now: float) -> None:
        """Remember an id; the oldest are forgotten."""
        self._at[id] = now
        self._at.move_to_end(id)
        oldest = now - _REMEMBERED_FOR
        while len(self._at) > MOST_REMEMBERED or next(iter(self._at.values())) < oldest:
            self._at.popitem(last=False)

    def last(self, id: str, now: float) -> float | None:
        """Return when the id was last named; None if not lately."""
        at = self._at.get(id)
        return at if at is not None and now - at <= _REMEMBERED_FOR else None


def subscribe_weakly(signals: Signals, listener: Listener) -> Callable[[], object]:
    """Subscribe a bound method without keeping its object alive; return what ends it."""
    method = weakref.WeakMethod(listener)

    def forward(event: str, ids: frozenset[str]) -> None:
        call = method()
        if call is not None:
            call(event, ids)

    owner = getattr(listener, "__self__", None)
    return weakref.finalize(owner, signals.subscribe(forward))
