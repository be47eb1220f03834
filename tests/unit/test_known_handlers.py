"""The handlers of all processes, as a process remembers them."""

from collections.abc import Mapping

from gather_async.webhooks.runs import KnownHandlers

_HERE = {"here": frozenset({"*"})}
_THERE = {"there": frozenset({"x"})}


def _announce(known: KnownHandlers, now: float) -> Mapping[str, frozenset[str]]:
    """Return what goes to the inbox now."""
    if handlers := known.due(_HERE, now):
        known.announced(_HERE, now + 60.0)
    return handlers


def test_what_an_inbox_lost_is_announced_again_with_the_others() -> None:
    """The first process that finds out saves the handlers of those that don't know yet."""
    known = KnownHandlers()
    assert _announce(known, 0.0) == _HERE
    known.record({**_HERE, **_THERE}, 0.0)
    assert not _announce(known, 4.0)
    known.record({}, 5.0)
    assert known.events == {**_HERE, **_THERE}
    assert _announce(known, 5.0) == {**_THERE, **_HERE}
    known.record({**_HERE, **_THERE}, 5.0)
    assert not known.are_lost


def test_an_inbox_that_keeps_no_handlers_is_not_asked_without_end() -> None:
    """Each loss is announced at once, but no more than one in a second; nothing is forgotten."""
    known = KnownHandlers()
    announced = [_announce(known, 0.0)]
    known.record({**_HERE, **_THERE}, 0.0)
    for step in range(100):
        known.record({}, 5.0 + step / 50)
        announced.append(_announce(known, 5.0 + step / 50))
        assert known.events == {**_HERE, **_THERE}
    assert sum(map(bool, announced)) == 1 + 2
