"""The handlers of all processes, as a process remembers them."""

from collections.abc import Mapping
from typing import Any

from gather_async.webhooks.handlers import KnownHandlers

_HERE = {"here": frozenset({"*"})}
_THERE = {"there": frozenset({"x"})}


class _Forgetful:
    """An inbox that counts announcements, and keeps none."""

    def __init__(self) -> None:
        self.announced: list[Mapping[str, frozenset[str]]] = []

    async def announce(self, _: str, handlers: Mapping[str, frozenset[str]], **__: Any) -> None:
        """Forget them."""
        self.announced.append(handlers)


async def _announce(known: KnownHandlers, inbox: Any, now: float) -> None:
    await known.announce(inbox, ("r",), _HERE, keep_for=3600.0, now=now)


async def test_what_an_inbox_lost_is_announced_again_with_the_others() -> None:
    """The first process that finds out saves the handlers of those that don't know yet."""
    known, inbox = KnownHandlers(), _Forgetful()
    await _announce(known, inbox, 0.0)
    known.record({**_HERE, **_THERE}, 0.0)
    known.record({}, 5.0)
    assert known.events == {**_HERE, **_THERE}
    await _announce(known, inbox, 5.0)
    assert inbox.announced == [_HERE, {**_THERE, **_HERE}]
    known.record({**_HERE, **_THERE}, 5.0)
    assert not known.are_lost


async def test_an_inbox_that_keeps_no_handlers_is_not_asked_without_end() -> None:
    """Each loss is announced at once, but no more than one in a second; nothing is forgotten."""
    known, inbox = KnownHandlers(), _Forgetful()
    await _announce(known, inbox, 0.0)
    known.record({**_HERE, **_THERE}, 0.0)
    for step in range(100):
        known.record({}, 5.0 + step / 50)
        await _announce(known, inbox, 5.0 + step / 50)
        assert known.events == {**_HERE, **_THERE}
    assert len(inbox.announced) == 1 + 2
