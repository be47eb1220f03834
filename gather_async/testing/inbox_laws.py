"""The laws of an inbox, for a store of your own.

Each law is an async function that gets two objects of one empty storage (the same one twice, if
it is not shared) and a function that lets seconds pass::

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    async def test_my_inbox(law):
        await law(MyInbox(url), MyInbox(url), asyncio.sleep)

`check` does the same without a test framework. A broken law raises `AssertionError`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from inspect import iscoroutinefunction, signature
from typing import Any, Final

from gather_async.webhooks import (
    ClaimedEvent,
    ClaimReport,
    EventState,
    HandlerFailure,
    Inbox,
    PutResult,
    StoredEvent,
)

__all__ = ["LAWS", "Law", "Sleep", "check", "event"]

Sleep = Callable[[float], Awaitable[object]]
Law = Callable[[Inbox, Inbox, Sleep], Awaitable[None]]

# Seconds: a lease that a law waits for, and one that lasts longer than any law.
_LEASE: Final = 0.75
_LONG: Final = 60.0
_ALL: Final = frozenset({"*"})


async def check(make: Callable[[], tuple[Inbox, Inbox]], *, sleep: Sleep = asyncio.sleep) -> None:
    """Check all laws: ``make`` returns two objects of one empty storage, for each law anew.

    Raises:
        AssertionError: A law is broken.
    """
    for law in LAWS:
        inbox, other = make()
        try:
            await law(inbox, other, sleep)
        except AssertionError as error:
            raise AssertionError(f"{law.__name__}: {error}") from error
        finally:
            await inbox.aclose()
            await other.aclose()


def event(key: str = "k", name: str = "x", **fields: Any) -> StoredEvent:
    """Return an event as an inbox gets it."""
    text = f'{{"event":"{name}","data":{{"id":"{key}"}}}}'
    given = {"key": key, "name": name, "text": text, "received_at": 1_767_225_600.0, **fields}
    return StoredEvent(**given)


def _equal(actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{actual!r} is not {expected!r}")


async def _claim(inbox: Inbox, *, handlers: Any = (), **options: Any) -> list[ClaimedEvent]:
    defaults: dict[str, Any] = {"receiver": "", "limit": 10, "lease": _LONG}
    return list((await inbox.claim(handlers=handlers, **(defaults | options))).events)


async def _one(inbox: Inbox, **options: Any) -> ClaimedEvent:
    claims = await _claim(inbox, **options)
    _equal(len(claims), 1)
    return claims[0]


async def _keys(inbox: Inbox, **options: Any) -> list[str]:
    return [claimed.event.key for claimed in await _claim(inbox, **options)]


async def _counts(inbox: Inbox) -> dict[EventState, int]:
    return {state: count for state, count in (await inbox.counts()).items() if count}


async def _over(inbox: Inbox, claimed: ClaimedEvent, **report: Any) -> None:
    await inbox.report([ClaimReport(claimed=claimed, **report)])


async def _events_are_stored_once(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """A claim brings the event as it was put; it is recognised for as long as it is kept."""
    put = event(synthetic=True, signed=False, tenant="acme", receiver="web", default_event="x")
    _equal((await inbox.contains(put), await inbox.put(put)), (False, PutResult.NEW))
    _equal(await other.put(put), PutResult.DUPLICATE)
    _equal(await other.put(event("new name", aliases=("k",))), PutResult.DUPLICATE)
    _equal(await inbox.contains(put), True)
    claimed = await _one(inbox, receiver="web")
    _equal(claimed.event, put)
    _equal((claimed.ended, dict(claimed.failures), claimed.crashes), (frozenset(), {}, 0))
    _equal(await _claim(other, receiver="web"), [])
    await inbox.complete(claimed, "a")
    await _over(inbox, claimed)
    _equal(await _claim(inbox, receiver="web"), [])
    _equal(await _counts(other), {EventState.DONE: 1})
    _equal(await inbox.put(put), PutResult.DUPLICATE)


async def _the_oldest_comes_first(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """Events are claimed in the order of their arrival, a retry after what arrived before it."""
    for key in "abc":
        await inbox.put(event(key))
    first = await _one(inbox, limit=1)
    await _over(inbox, first, due_in=0.05)
    await sleep(0.1)
    _equal(await _keys(other), ["b", "c", "a"])


async def _successes_stay_beside_failures(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """The event comes again when it is due, without the handlers that succeeded or are dead."""
    await inbox.put(event())
    claimed = await _one(inbox)
    await inbox.complete(claimed, "a")
    failure = HandlerFailure(failures=3, error="boom", retry_in=_LEASE)
    dead = {"d": HandlerFailure(failures=8, error="dead")}
    await _over(inbox, claimed, done=["c"], failed={"b": failure}, dead=dead, due_in=_LEASE)
    result = await other.claim("", (), limit=9, lease=_LONG)
    _equal(list(result.events), [])
    _equal(result.next_due_in is not None and 0 < result.next_due_in <= _LEASE, True)
    await sleep(_LEASE + 0.05)
    again = await _one(other)
    _equal((again.ended, again.crashes), ({"a", "c", "d"}, 0))
    _equal({name: each.failures for name, each in again.failures.items()}, {"b": 3})
    _equal(again.failures["b"].retry_in <= 0, True)
    await _over(other, again, done=["b"])
    _equal(await _counts(inbox), {EventState.DEAD: 1})


async def _retries_keep_their_own_time(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """Each failure keeps its own pause, though the event is due with the first."""
    await inbox.put(event())
    soon, late = (HandlerFailure(failures=1, error="e", retry_in=s) for s in (0.0, _LONG))
    await _over(inbox, await _one(inbox), failed={"a": soon, "b": late}, due_in=0.0)
    again = await _one(other)
    _equal(again.failures["a"].retry_in <= 0, True)
    _equal(_LONG / 2 < again.failures["b"].retry_in <= _LONG, True)


async def _a_completion_is_final(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """No later failure undoes the success of a handler."""
    await inbox.put(event())
    claimed = await _one(inbox)
    await inbox.complete(claimed, "a")
    failure = {"a": HandlerFailure(failures=1, error="e")}
    await _over(inbox, claimed, failed=failure, due_in=0.0)
    again = await _one(other)
    _equal((again.ended, dict(again.failures)), ({"a"}, {}))
    await _over(other, again, dead=failure)
    _equal(await _counts(inbox), {EventState.DONE: 1})


async def _leases_end_and_are_counted(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """An event whose holder reports nothing comes again, and the crash is counted."""
    await inbox.put(event())
    first = await _one(inbox, lease=_LEASE)
    _equal(await _claim(other), [])
    await sleep(_LEASE + 0.05)
    second = await _one(other, lease=_LEASE)
    _equal((first.crashes, second.crashes), (0, 1))
    _equal(set(await other.renew([second], lease=3 * _LEASE)), {"k"})
    _equal(set(await inbox.renew([first], lease=0.0)), set())
    await sleep(2 * _LEASE)
    _equal(await _claim(inbox), [])
    await sleep(2 * _LEASE)
    _equal((await _one(inbox)).crashes, 2)


async def _stale_reports_change_nothing(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """A process that lost its lease can neither end nor delay the event."""
    await inbox.put(event())
    stale = await _one(inbox, lease=_LEASE)
    await sleep(_LEASE + 0.05)
    current = await _one(other)
    failure = {"b": HandlerFailure(failures=1, error="e")}
    await _over(inbox, stale, done=["a"], dead=failure)
    await _over(inbox, stale, failed=failure, due_in=_LONG)
    await _over(inbox, stale)
    _equal(list(await inbox.dead_letters()), [])
    _equal(await _counts(inbox), {EventState.WAITING: 1})
    await inbox.complete(stale, "c")
    await _over(other, current, due_in=0.0)
    again = await _one(inbox)
    _equal((again.ended, dict(again.failures)), ({"a", "c"}, {}))


async def _giving_back_counts_nothing(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """An event that was given back is due at once, without failure or crash."""
    await inbox.put(event())
    await _over(inbox, await _one(inbox), due_in=0.0)
    again = await _one(other)
    _equal((again.crashes, dict(again.failures)), (0, {}))


async def _ignored_events_are_replayed(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """An ignored event is kept, listed, and comes again when it is replayed."""
    await inbox.put(event(tenant="acme"))
    await inbox.put(event("other", "y"))
    for claimed in await _claim(inbox, limit=2):
        await _over(inbox, claimed, is_ignored=True)
    _equal(await _counts(inbox), {EventState.IGNORED: 2})
    for options in [dict[str, Any](event="x"), {"tenant": "acme"}, {"limit": 1}]:
        found = await other.list(state=EventState.IGNORED, **options)
        _equal([(each.event.key, each.state) for each in found], [("k", EventState.IGNORED)])
    _equal(list(await other.list(state=EventState.WAITING)), [])
    _equal(await other.replay(["k", "unknown"]), 1)
    _equal(await _keys(inbox), ["k"])
    _equal(await inbox.discard(["other", "unknown"]), 1)
    _equal(await _counts(inbox), {EventState.WAITING: 1, EventState.DONE: 1})


async def _dead_letters_are_kept(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """A dead letter is kept with its error; a replay forgets the failures, not the successes."""
    for key in ("one", "two"):
        await inbox.put(event(key, receiver="web"))
    for claimed in await _claim(inbox, receiver="web"):
        dead = {"b": HandlerFailure(failures=8, error="Bad: \ud800\0")}
        await _over(inbox, claimed, done=["a"], dead=dead)
    _equal(await _counts(inbox), {EventState.DEAD: 2})
    _equal(await _claim(inbox, receiver="web"), [])
    letters = await other.dead_letters(receiver="web")
    _equal({(each.key, each.handler, each.failures) for each in letters}, _LETTERS)
    _equal({each.error.startswith("Bad: ") for each in letters}, {True})
    _equal("Bad" in repr(letters), False)
    _equal(len(await other.dead_letters(receiver="elsewhere")), 0)
    _equal([await other.replay(["one"], handlers=["b"]) for _ in "ab"], [1, 0])
    again = await _one(inbox, receiver="web")
    _equal((again.event.key, again.ended, again.crashes), ("one", {"a"}, 0))
    _equal(dict(again.failures), {})
    for handler, count in (("a", 0), ("b", 1), ("b", 0)):
        _equal(await inbox.discard(["two"], handlers=[handler]), count)
    _equal(list(await inbox.dead_letters()), [])
    _equal(await inbox.put(event("two")), PutResult.DUPLICATE)
    await _over(inbox, again, done=["b"])
    _equal(await _counts(inbox), {EventState.DONE: 2})


_LETTERS: Final = {("one", "b", 8), ("two", "b", 8)}


async def _replays_are_for_chosen_handlers(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """A replay for one handler leaves the successes of the others."""
    await inbox.put(event())
    await _over(inbox, await _one(inbox), done=["a", "b"])
    _equal((await inbox.replay(["k"], handlers=["b"]), (await _one(other)).ended), (1, {"a"}))


async def _discarded_events_stay_over(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """An event that was given up stays over, whatever its holder reports."""
    await inbox.put(event())
    claimed = await _one(inbox)
    _equal(await other.discard(["k"]), 1)
    await _over(inbox, claimed, due_in=0.0)
    _equal(await _claim(inbox), [])
    _equal(await _counts(inbox), {EventState.DONE: 1})


async def _receivers_have_own_events(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """Two receivers on one inbox get each its own events, until one takes the other's over."""
    await inbox.put(event("web/k", receiver="web"))
    await inbox.put(event("crm/k", receiver="crm"))
    await inbox.put(event("k"))
    _equal(await _keys(inbox, receiver="web"), ["web/k"])
    await other.announce("web2", {"a": _ALL}, former=["crm", ""], keep_for=_LONG)
    _equal(sorted(await _keys(other, receiver="web2")), ["crm/k", "k"])


async def _an_event_waits_for_one_handler(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """An event that waits for one handler is claimed for that one alone, wherever it lives."""
    await inbox.announce("", {"a": _ALL}, keep_for=_LONG)
    await other.announce("", {"b": {"x", "y"}}, keep_for=_LONG)
    await inbox.put(event())
    result = await inbox.claim("", ["a"], limit=9, lease=_LONG)
    _equal(dict(result.handlers), {"a": _ALL, "b": {"x", "y"}})
    await _over(inbox, result.events[0], done=["a"], due_in=0.0, waits_for="b")
    _equal((await inbox.claim("", ["a"], limit=9, lease=_LONG)).next_due_in, None)
    _equal((await _one(other, handlers=["b"])).ended, {"a"})


async def _a_new_handler_gets_what_waits(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """What waits for one handler waits for any again once a new one is announced."""
    await inbox.announce("", {"a": _ALL, "old": _ALL}, keep_for=_LONG)
    await inbox.put(event())
    await _over(inbox, await _one(inbox), done=["a"], due_in=0.0, waits_for="old")
    await inbox.announce("", {"a": _ALL}, keep_for=_LONG)
    _equal(await _claim(inbox, handlers=["a"]), [])
    await other.announce("", {"new": _ALL}, keep_for=_LONG)
    _equal((await _one(other, handlers=["new"])).ended, {"a"})


async def _gone_handlers_are_forgotten(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """What waits for a handler that no process announces waits for any again after a while."""
    await inbox.announce("", {"a": _ALL}, keep_for=_LONG)
    await inbox.announce("", {"gone": _ALL}, keep_for=_LEASE)
    await inbox.put(event())
    await _over(inbox, await _one(inbox), due_in=0.0, waits_for="gone")
    await sleep(_LEASE + 0.05)
    await inbox.prune()
    result = await other.claim("", ["a"], limit=9, lease=_LONG)
    _equal([each.event.key for each in result.events], ["k"])
    _equal(set(result.handlers), {"a"})


async def _synthetic_and_real_are_one(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """The same state of a subject is one event, if one of the two is synthetic."""
    a: dict[str, Any] = {"subjects": ("s",), "state": "A"}
    _equal(await inbox.put(event("1", **a)), PutResult.NEW)
    _equal(await other.contains(event("2", synthetic=True, **a)), True)
    _equal(await other.put(event("2", synthetic=True, **a)), PutResult.DUPLICATE)
    former: dict[str, Any] = {"subjects": ("t", "s"), "state": "A", "synthetic": True}
    _equal(await other.put(event("2", **former)), PutResult.DUPLICATE)
    _equal(await other.put(event("3", **a)), PutResult.NEW)
    b: dict[str, Any] = {"subjects": ("s",), "state": "B"}
    _equal(await other.contains(event("4", synthetic=True, **b)), False)
    _equal(await other.put(event("4", synthetic=True, **b)), PutResult.NEW)
    _equal(await inbox.put(event("5", **b)), PutResult.DUPLICATE)
    _equal(await inbox.put(event("6", **a)), PutResult.NEW)


async def _old_events_are_forgotten(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """Only what is done or ignored is forgotten, with what it was about."""
    for key in ("done", "dead", "waiting", "last"):
        await inbox.put(event(key, subjects=(key,), state="A"))
    for claimed in await _claim(inbox):
        dead = {"h": HandlerFailure(failures=1, error="e")}
        over = {"done": {}, "dead": {"dead": dead}, "waiting": {"due_in": _LONG}, "last": {}}
        await _over(inbox, claimed, **over[claimed.event.key])  # type: ignore[arg-type]
    await sleep(0.1)
    await inbox.put(event("newest"))
    _equal(await other.prune(older_than=_LONG), 0)
    _equal(await other.prune(older_than=0.05), 2)
    _equal(
        await inbox.contains(event("other", subjects=("done",), state="A", synthetic=True)), False
    )
    _equal(await inbox.put(event("done")), PutResult.NEW)
    for key in ("dead", "waiting"):
        _equal(await inbox.put(event(key)), PutResult.DUPLICATE)


async def _claims_never_share_an_event(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """Claims at the same time bring each event once."""
    await asyncio.gather(*(inbox.put(event(f"k{n}")) for n in range(60)))
    claims = (_keys(box, limit=7) for _ in range(6) for box in (inbox, other))
    keys = [key for found in await asyncio.gather(*claims) for key in found]
    _equal((len(keys), len(set(keys))), (60, 60))


async def _a_put_is_atomic(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """Of many deliveries of one event at the same time one is new."""
    boxes = [inbox, other] * 5
    results = await asyncio.gather(*(box.put(event(subjects=("s",))) for box in boxes))
    _equal(sorted(each.value for each in results), ["duplicate"] * 9 + ["new"])


async def _put_events_are_published(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """Events are published in order, each once, to every reader of a shared inbox."""
    if not inbox.is_shared:
        return
    await inbox.put(event("before"))
    position = (await other.published(None)).position
    _equal(list((await other.published(position)).events), [])
    for key in "abc":
        await inbox.put(event(key, tenant="acme"))
    found: list[StoredEvent] = []
    for _ in range(100):
        part = await other.published(position, limit=2)
        position = part.position
        found += part.events
        if len(found) >= 3:
            break
        await sleep(0.01)
    _equal([(each.key, each.tenant) for each in found], [(key, "acme") for key in "abc"])
    _equal(list((await other.published(position)).events), [])


async def _closing_is_harmless(inbox: Inbox, other: Inbox, sleep: Sleep) -> None:
    """An inbox that was closed opens again with the next use; a shared one with its events."""
    await inbox.put(event())
    for _ in range(2):
        await inbox.aclose()
    await inbox.open()
    if inbox.is_shared:
        _equal(await inbox.contains(event()), True)


LAWS: Final[Sequence[Law]] = tuple(
    value
    for value in list(globals().values())
    if iscoroutinefunction(value) and [*signature(value).parameters] == ["inbox", "other", "sleep"]
)
"""Every law, in the order in which to read them."""
