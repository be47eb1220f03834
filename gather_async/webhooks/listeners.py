"""Who is told at once that something happened: waiting calls of clients."""

import itertools
import logging
from collections.abc import Callable

__all__ = ["Listener", "Listeners"]

_log = logging.getLogger("gather_async.webhooks")

Listener = Callable[[str, frozenset[str]], None]
"""Gets an event's name and the ids found in its data; must neither block nor raise."""


class Listeners:
    """Any number of listeners; each subscription ends by itself."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._listeners: dict[int, Listener] = {}

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call a listener for each event from now on; the returned function ends it."""
        number = next(self._numbers)
        self._listeners[number] = listener

        def unsubscribe() -> None:
            self._listeners.pop(number, None)

        return unsubscribe

    @property
    def is_empty(self) -> bool:
        """Whether nobody listens."""
        return not self._listeners

    def tell(self, event: str, ids: frozenset[str]) -> None:
        """Tell all listeners; one that raises harms nobody."""
        for listener in tuple(self._listeners.values()):
            try:
                listener(event, ids)
            except Exception:
                _log.exception("A listener to webhooks failed")
