"""The receiver: answers, handlers in the background, retries, draining, signals, catching up."""

import asyncio
import functools
import itertools
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.models import CandidateInterview, CandidateInterviewStatus
from gather_async.protocol import signatures
from gather_async.testing import VirtualClock
from gather_async.webhooks import (
    CandidateInterviewCompleted,
    ClaimReport,
    EventState,
    HandlerPolicy,
    MemoryInbox,
    SQLiteInbox,
    UnknownEvent,
    WebhookEvent,
    WebhookReceiver,
    WebhookReply,
    sample_body,
    sign,
)

SECRET = "s3cret"


@pytest.fixture
def clock() -> VirtualClock:
    """Return a clock whose time passes by itself."""
    return VirtualClock()


def receiver(clock: VirtualClock, **options: Any) -> WebhookReceiver:
    """Return a receiver that lives in virtual time."""
    return WebhookReceiver(SECRET, clock=clock, **options)


async def deliver(
    hooks: WebhookReceiver, clock: VirtualClock, event: str = "x", **data: Any
) -> WebhookReply:
    """Deliver an event that is signed now."""
    body = sample_body(event, data=data, at=datetime.fromtimestamp(clock.wall(), UTC))
    header = sign(body, secret=SECRET, timestamp=clock.wall())
    return await hooks.receive(body, {"X-Qualifi-Signature": header})


async def until(condition: Callable[[], bool]) -> None:
    """Give way until something is so."""
    while not condition():  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0)


async def test_answers(clock: VirtualClock) -> None:
    """Each kind of delivery has its answer, and only a trusted event reaches a handler."""
    hooks, seen = receiver(clock, max_body=1000), list[WebhookEvent]()

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        seen.append(event)

    body = sample_body("x", data={})
    header = sign(body, secret=SECRET, timestamp=clock.wall())
    old = sign(body, secret=SECRET, timestamp=clock.wall() - 301)
    async with hooks:
        for headers in ({}, {"x-qualifi-signature": "t=1,v1=0"}, {"X-QUALIFI-SIGNATURE": old}):
            assert (await hooks.receive(body, headers)).status == 401
        signed_list = {"x-qualifi-signature": sign(b"[]", secret=SECRET, timestamp=clock.wall())}
        assert (await hooks.receive(b"[]", signed_list)).status == 400
        assert (await hooks.receive(b"x" * 1001, {})).status == 413
        pairs = [(b"x-qualifi-signature", header.encode())]
        assert (await hooks.receive(body, {"X-Qualifi-Signature": header})).status == 200
        assert (await hooks.receive(body, pairs)).status == 200
    assert [event.event for event in seen] == ["x"]
    assert (await hooks.receive(body, {"X-Qualifi-Signature": header})).status == 503


async def test_headers_and_bodies_of_any_kind(clock: VirtualClock) -> None:
    """Headers count in whatever a framework keeps them; what is none gets 401, a body 400."""
    hooks = receiver(clock)
    body = sample_body("x", data={})
    header = sign(body, secret=SECRET, timestamp=clock.wall())
    message = Message()
    message["X-Qualifi-Signature"] = header
    fitting: list[Any] = [
        message,
        CIMultiDict({"X-Qualifi-Signature": header}),
        {b"X-QUALIFI-SIGNATURE": header.encode()},
        iter([("other", "x"), ("x-qualifi-signature", header)]),
    ]
    for headers in fitting:
        assert (await hooks.receive(body, headers)).status == 200
    lacking: list[Any] = [None, {}, [], {"X-Qualifi-Signature": None}, {"X-Qualifi-Signature": 5}]
    for headers in lacking:
        assert (await hooks.receive(body, headers)).status == 401
    bodies: list[tuple[Any, int]] = [
        (bytearray(body), 200),
        (memoryview(body), 200),
        (body.decode(), 200),
        (None, 400),
        ({"event": "x"}, 400),
    ]
    for other, status in bodies:
        reply = await hooks.receive(other, {"X-Qualifi-Signature": header})
        assert reply.status == status
    await hooks.aclose()


async def test_handlers_by_name_class_and_star(clock: VirtualClock) -> None:
    """Handlers get what they asked for, once, and the decorator returns them unchanged."""
    hooks, seen = receiver(clock), list[str]()

    def named(word: str) -> Callable[[WebhookEvent], Awaitable[None]]:
        async def handler(event: WebhookEvent) -> None:
            seen.append(f"{word} {event.event}")

        return handler

    @hooks.on("candidate_interview.completed")
    @hooks.on("*")
    async def both(event: CandidateInterviewCompleted | WebhookEvent) -> None:
        seen.append(f"both {event.event}")

    hooks.on(CandidateInterviewCompleted, name="class")(named("class"))  # type: ignore[arg-type]  # any awaitable
    hooks.on(UnknownEvent, name="unknown")(named("unknown"))  # type: ignore[arg-type]  # any awaitable
    hooks.on("x", name="x", allow_unknown=True)(named("x"))  # type: ignore[arg-type]  # any awaitable
    async with hooks:
        await deliver(hooks, clock, "candidate_interview.completed")
        await deliver(hooks, clock, "x")
    assert sorted(seen) == [
        "both candidate_interview.completed",
        "both x",
        "class candidate_interview.completed",
        "unknown x",
        "x x",
    ]


async def test_bad_handlers_are_refused(clock: VirtualClock) -> None:
    """A function that isn't async, a second one of the same name, and a wrong event are refused."""
    hooks = receiver(clock)

    async def fine(event: WebhookEvent) -> None: ...
    async def other(event: WebhookEvent) -> None: ...

    hooks.on("x", name="n", allow_unknown=True)(fine)
    with pytest.raises(ConfigurationError, match="name="):
        hooks.on("x", name="n", allow_unknown=True)(other)
    with pytest.raises(ConfigurationError, match="async"):
        hooks.on("x", allow_unknown=True)(lambda event: None)  # type: ignore[arg-type, return-value]  # on purpose

    async def takes_none() -> None: ...
    async def takes_two(event: WebhookEvent, request: object) -> None: ...
    async def takes_more(event: WebhookEvent, retry: bool = False, *rest: object) -> None: ...

    for function in (takes_none, takes_two):
        with pytest.raises(ConfigurationError, match=f"{function.__name__} must take one"):
            hooks.on("*")(function)  # type: ignore[arg-type]  # on purpose
    hooks.on("*")(takes_more)
    wrong: list[Any] = ["", 7, int, "candidate_interview.complete"]
    for event in wrong:
        with pytest.raises(ConfigurationError):
            hooks.on(event)


async def test_handlers_that_share_a_function_name(clock: VirtualClock) -> None:
    """Closures, methods of two objects and partials are handlers of their own, once each."""
    hooks = receiver(clock)
    seen: list[str] = []

    class Owner:
        def __init__(self, name: str) -> None:
            self.name = name

        async def note(self, event: WebhookEvent) -> None:
            seen.append(self.name)

    def closure(name: str) -> Callable[[WebhookEvent], Coroutine[Any, Any, None]]:
        async def handle(event: WebhookEvent) -> None:
            seen.append(name)

        return handle

    async def partly(name: str, event: WebhookEvent) -> None:
        seen.append(name)

    first, second = Owner("method 1"), Owner("method 2")
    for handler in (closure("closure 1"), closure("closure 2"), first.note, second.note):
        hooks.on("x", allow_unknown=True)(handler)
    hooks.on("y", allow_unknown=True)(first.note)
    for name in ("partial 1", "partial 2"):
        hooks.on("x", allow_unknown=True)(functools.partial(partly, name))
    async with hooks:
        await deliver(hooks, clock)
    kinds = ("closure", "method", "partial")
    assert sorted(seen) == [f"{kind} {n}" for kind in kinds for n in (1, 2)]
    assert [name.rpartition(".")[2] for name in hooks.handlers] == [
        "handle",
        "handle#2",
        "note",
        "note#2",
        "partly",
        "partly#2",
    ]


async def test_answer_does_not_wait_for_handlers(clock: VirtualClock) -> None:
    """With handlers that take 10 s, deliveries are answered in no time at all."""
    hooks, done = receiver(clock, handling=HandlerPolicy(concurrency=3)), list[float]()

    @hooks.on("*")
    async def slow(event: WebhookEvent) -> None:
        await clock.sleep(10)
        done.append(clock.monotonic())

    start = clock.monotonic()
    async with hooks:
        for n in range(6):
            await deliver(hooks, clock, n=n)
        assert clock.monotonic() == start
    assert [round(at - start) for at in done] == [10, 10, 10, 20, 20, 20]


async def test_retries_then_dead_letter_then_replay(clock: VirtualClock) -> None:
    """A failing handler is run again with growing pauses, then can be read and replayed."""
    handling = HandlerPolicy(attempts=3, base=8, drain=1000)
    hooks, runs, good = receiver(clock, handling=handling), list[float](), list[str]()
    broken = True

    @hooks.on("x", name="bad", allow_unknown=True)
    async def bad(event: WebhookEvent) -> None:
        runs.append(clock.monotonic())
        if broken:
            raise ValueError("ann@example.com")

    @hooks.on("x", name="good", allow_unknown=True)
    async def fine(event: WebhookEvent) -> None:
        good.append(event.event)

    async with hooks:
        await deliver(hooks, clock, n=1)
        await clock.sleep(100)
        first, second = (after - before for before, after in itertools.pairwise(runs))
        assert 4 <= first <= 8 < second <= 16
        (letter,) = await hooks.dead_letters()
        assert (letter.handler, letter.failures, letter.event.data) == ("bad", 3, {"n": 1})
        assert letter.error.startswith("ValueError: ann@example.com\nTraceback")
        broken = False
        assert await hooks.replay([letter]) == 1
        await clock.sleep(1)
        assert await hooks.dead_letters() == []
    assert (len(runs), good) == (4, ["x"])


async def test_logs_show_no_personal_data(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure is logged with its kind, not with what its message or the event holds."""
    caplog.set_level("INFO")
    hooks = receiver(clock, handling=HandlerPolicy(attempts=1))

    @hooks.on("*")
    async def bad(event: WebhookEvent) -> None:
        raise ValueError("ann@example.com")

    async with hooks:
        await deliver(hooks, clock, email="bob@example.com")
        await hooks.receive(b"{}", {})
    assert "ValueError" in caplog.text
    assert "missing_header" in caplog.text
    assert "@" not in caplog.text


async def test_timeout_is_a_failure(clock: VirtualClock) -> None:
    """A handler that takes too long is cancelled, and so is one that cancels itself."""
    hooks, ended = receiver(clock, handling=HandlerPolicy(timeout=5, attempts=1)), list[str]()

    @hooks.on("slow", allow_unknown=True)
    async def slow(event: WebhookEvent) -> None:
        try:
            await clock.sleep(50)
        finally:
            ended.append("cancelled")

    @hooks.on("self", allow_unknown=True)
    async def itself(event: WebhookEvent) -> None:
        raise asyncio.CancelledError

    async with hooks:
        await deliver(hooks, clock, "slow")
        await deliver(hooks, clock, "self")
        await clock.sleep(6)
        errors = {letter.error for letter in await hooks.dead_letters()}
    assert ended == ["cancelled"]
    assert errors == {
        "TimeoutError: it took longer than 5 seconds",
        "CancelledError: it was cancelled from within",
    }


async def test_drain_ends_in_time(clock: VirtualClock, tmp_path: Path) -> None:
    """Closing waits for handlers as long as it may; what it cancels is done at the next start."""
    hooks = receiver(
        clock, inbox=SQLiteInbox(tmp_path / "i.db", clock=clock), handling=HandlerPolicy(drain=5)
    )
    started, ended, pause = list[str](), list[str](), 100.0

    @hooks.on("x", allow_unknown=True)
    async def slow(event: WebhookEvent) -> None:
        started.append(event.event)
        await clock.sleep(pause)
        ended.append(event.event)

    async with hooks:
        await deliver(hooks, clock)
        await until(lambda: bool(started))
        before = clock.monotonic()
    assert clock.monotonic() - before == pytest.approx(5, abs=0.1)
    assert (started, ended) == (["x"], [])
    pause = 1.0
    async with hooks:
        pass
    assert (started, ended) == (["x", "x"], ["x"])


async def test_closed_from_two_sides(clock: VirtualClock) -> None:
    """Closing it twice at once, as a signal and a lifespan may, ends it once, for both."""
    hooks, seen = receiver(clock), list[str]()

    @hooks.on("x", allow_unknown=True)
    async def slow(event: WebhookEvent) -> None:
        await clock.sleep(1.0)
        seen.append(event.event)

    await hooks.start()
    await deliver(hooks, clock)
    await asyncio.gather(*(hooks.aclose() for _ in range(3)))
    assert seen == ["x"]
    assert not hooks.alive


async def test_cancelled_close_cancels_handlers(clock: VirtualClock) -> None:
    """Cancelling `aclose` leaves no handler running."""
    hooks, ended = receiver(clock, handling=HandlerPolicy(drain=1e6)), list[str]()
    entered = asyncio.Event()

    @hooks.on("x", allow_unknown=True)
    async def endless(event: WebhookEvent) -> None:
        try:
            entered.set()
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    await hooks.start()
    await deliver(hooks, clock)
    await entered.wait()
    closing = asyncio.create_task(hooks.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert ended == ["cancelled"]
    assert not hooks.alive


async def test_stored_before_start(
    clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A delivery before the start is taken, warned about once, and handled after it."""
    hooks, seen = receiver(clock, inbox=SQLiteInbox(tmp_path / "i.db", clock=clock)), list[Any]()

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        seen.append(event.data["n"])

    for n in range(3):
        assert (await deliver(hooks, clock, n=n)).status == 200
    assert seen == []
    assert caplog.text.count("no handler runs") == 1
    async with hooks:
        pass
    assert sorted(seen) == [0, 1, 2]


async def test_receiving_for_another_process(
    clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without handlers of its own, a receiver on a shared inbox has nothing to start."""
    hooks = receiver(clock, inbox=SQLiteInbox(tmp_path / "i.db", clock=clock))
    assert (await deliver(hooks, clock)).status == 200
    assert caplog.messages == []
    await hooks.aclose()
    assert (await deliver(receiver(clock), clock)).status == 200
    assert "no handler runs" in caplog.text


async def test_full_inbox_is_503(clock: VirtualClock) -> None:
    """A full inbox makes the sender try again; a duplicate of what is in it is taken."""
    hooks = receiver(clock, inbox=MemoryInbox(capacity=1, clock=clock))

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None: ...

    assert [(await deliver(hooks, clock, n=n)).status for n in (1, 2, 1)] == [200, 503, 200]
    async with hooks:
        await clock.sleep(1)
        assert (await deliver(hooks, clock, n=2)).status == 200


@pytest.mark.parametrize("name", [r"a\ud800", r"a\u0000b", "e" * 5000])
async def test_an_odd_name_is_stored(name: str, clock: VirtualClock, tmp_path: Path) -> None:
    """A trusted event of any name that JSON can spell is taken, and handled."""
    hooks, seen = receiver(clock, inbox=SQLiteInbox(tmp_path / "i.db", clock=clock)), list[str]()

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        seen.append(event.event)

    body = f'{{"event":"{name}","data":{{}}}}'.encode()
    header = sign(body, secret=SECRET, timestamp=clock.wall())
    async with hooks:
        assert (await hooks.receive(body, {"X-Qualifi-Signature": header})).status == 200
    assert seen == [json.loads(body)["event"]]


async def test_unwritable_inbox_is_503(clock: VirtualClock, tmp_path: Path) -> None:
    """An inbox that can't be opened fails at the start, with its path, and is 503 until it can."""
    path = tmp_path / "i.db"
    hooks, seen = receiver(clock, inbox=SQLiteInbox(path, clock=clock)), list[Any]()

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        seen.append(event.data["n"])

    path.write_bytes(b"no database" * 500)
    with pytest.raises(ConfigurationError, match=r"i\.db"):
        await hooks.start()
    assert (await deliver(hooks, clock, n=1)).status == 503
    path.unlink()
    async with hooks:
        assert (await deliver(hooks, clock, n=1)).status == 200
    assert seen == [1]


async def test_lost_success_report_is_repeated(clock: VirtualClock) -> None:
    """A success that could not be written down is written later, not run again."""

    class Shaky(MemoryInbox):
        failures = 3

        async def report(self, reports: Any) -> None:
            if self.failures:
                self.failures -= 1
                raise sqlite3.OperationalError("disk full")
            await super().report(reports)

    hooks, runs = receiver(clock, inbox=Shaky(clock=clock)), list[str]()

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        runs.append(event.event)

    async with hooks:
        await deliver(hooks, clock)
    assert runs == ["x"]
    assert (await hooks.inbox.counts())[EventState.DONE] == 1


async def test_event_that_kills_the_process_is_buried(clock: VirtualClock, tmp_path: Path) -> None:
    """An event on which the process died again and again is a dead letter, and isn't run."""
    inbox = SQLiteInbox(tmp_path / "i.db", clock=clock)
    hooks, runs = receiver(clock, inbox=inbox), list[str]()

    @hooks.on("*", name="h")
    async def deadly(event: WebhookEvent) -> None:
        runs.append(event.event)

    await deliver(hooks, clock)
    for _ in range(25):
        assert len((await inbox.claim(hooks.name, (), limit=1, lease=0)).events) == 1
        await clock.sleep(0.01)
    async with hooks:
        pass
    assert runs == []
    assert "died 25 times" in (await hooks.dead_letters())[0].error
    await inbox.aclose()


async def test_leases_are_renewed(clock: VirtualClock, tmp_path: Path) -> None:
    """A handler that takes longer than the lease isn't given to another process meanwhile."""
    handling = HandlerPolicy(lease=3, timeout=100, drain=100)
    runs: list[str] = []
    receivers = [
        receiver(clock, inbox=SQLiteInbox(tmp_path / "i.db", clock=clock), handling=handling)
        for _ in range(2)
    ]
    for name, hooks in zip("ab", receivers, strict=True):

        async def slow(event: WebhookEvent, name: str = name) -> None:
            runs.append(name)
            await clock.sleep(20)

        hooks.on("*", name="slow")(slow)
    first, second = receivers
    async with first, second:
        await deliver(first, clock)
        await clock.sleep(15)
    assert len(runs) == 1


async def test_signals(clock: VirtualClock) -> None:
    """Each new event is reported at once to every subscriber; a broken one harms no one."""
    hooks, received = receiver(clock), list[Any]()
    assert not hooks.alive

    def broken(event: str, ids: frozenset[str]) -> None:
        raise RuntimeError

    hooks.subscribe(broken)
    stop = hooks.subscribe(lambda event, ids: received.append((event, ids)))
    async with hooks:
        assert hooks.alive
        assert hooks.last_event_at is None
        for _ in range(2):
            await deliver(
                hooks, clock, "question.audio_generated", questionId="q", more=[{"id": 1}]
            )
        assert received == [("question.audio_generated", {"q", "1"})]
        assert hooks.last_event_at == datetime.fromtimestamp(clock.wall(), UTC)
        stop()
        stop()
        await deliver(hooks, clock, "x")
    assert len(received) == 1
    assert not hooks.alive


async def test_large_bodies_are_checked_beside_the_loop(clock: VirtualClock) -> None:
    """A large body is verified as a small one is."""
    hooks = receiver(clock)
    assert (await deliver(hooks, clock, text="x" * 500_000)).status == 200
    body = json.dumps({"event": "x", "data": {"text": "x" * 500_000}}).encode()
    assert (await hooks.receive(body, {"x-qualifi-signature": "t=1,v1=0"})).status == 401


async def test_large_bodies_take_turns(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many forged large bodies come, signed ones don't queue behind them."""
    hooks, go_on, began, active, peak = receiver(clock), threading.Event(), asyncio.Event(), 0, 0
    verify, loop = signatures.verify_stringified, asyncio.get_running_loop()

    def slow_verify(body: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal active, peak
        if len(body) > 100_000:
            active += 1
            peak = max(peak, active)
            loop.call_soon_threadsafe(began.set)
            go_on.wait()
            active -= 1
        return verify(body, *arguments, **options)

    monkeypatch.setattr(signatures, "verify_stringified", slow_verify)
    forged = {"x-qualifi-signature": sign(b"", secret="other", timestamp=clock.wall())}
    large = [asyncio.create_task(hooks.receive(b"x" * 200_000, forged)) for _ in range(5)]
    await began.wait()
    assert (await deliver(hooks, clock)).status == 200
    assert (await deliver(hooks, clock, text="x" * 500_000)).status == 200
    go_on.set()
    assert {reply.status for reply in await asyncio.gather(*large)} == {401}
    assert peak == 1
    await hooks.aclose()


async def test_unsigned_by_an_unguessable_path(clock: VirtualClock) -> None:
    """With the token at the end of its path a delivery needs no signature, and says so."""
    token = "t" * 32
    hooks, seen = receiver(clock, unsigned_token=token), list[WebhookEvent]()

    @hooks.on("candidate_interview.completed")
    async def done(event: CandidateInterviewCompleted) -> None:
        seen.append(event)

    body = b'{"candidateInterviewId":"ci"}'
    async with hooks:
        assert (await hooks.receive(body, {}, path=f"/hooks/{token}/")).status == 200
        assert (await hooks.receive(b"[]", {}, path=f"/hooks/{token}")).status == 400
        for path in (None, "/hooks", f"/hooks/{token}x", f"/{token}/more", "/hooks/\udcff"):
            assert (await hooks.receive(body, {}, path=path)).status == 401
    (event,) = seen
    assert not event.signed
    assert isinstance(event, CandidateInterviewCompleted)
    assert event.candidate_interview_id == "ci"
    for bad in ("short", "t/" * 20):
        with pytest.raises(ConfigurationError):
            receiver(clock, unsigned_token=bad)


async def test_started_twice(clock: VirtualClock) -> None:
    """A receiver runs once at a time."""
    hooks = receiver(clock)
    async with hooks:
        with pytest.raises(ClientClosedError):
            await hooks.start()
    await hooks.aclose()


def test_two_loops() -> None:
    """In a second loop it is a clear error while the first lives, and fine once that is gone."""
    hooks = WebhookReceiver(SECRET)
    body = sample_body("x", data={})
    headers = {"x-qualifi-signature": sign(body, secret=SECRET)}
    first = asyncio.new_event_loop()
    first.run_until_complete(hooks.start())
    with pytest.raises(ClientClosedError, match="another event loop"):
        asyncio.run(hooks.receive(body, headers))
    first.run_until_complete(hooks.aclose())
    first.close()

    async def again() -> int:
        async with hooks:
            return (await hooks.receive(body, headers)).status

    assert asyncio.run(again()) == 200


class Server:
    """Candidate interviews, as `catch_up` reads them."""

    def __init__(self, items: list[CandidateInterview]) -> None:
        self.items = {item.id: item for item in items}
        self.lists_changes = True
        self.reads: list[str] = []

    @property
    def candidate_interviews(self) -> "Server":
        """Return itself: it has the two methods."""
        return self

    async def _all(self) -> AsyncIterator[CandidateInterview]:
        for item in self.items.values():
            yield item if self.lists_changes else _without_change(item)

    def list(self) -> AsyncIterator[CandidateInterview]:
        """Give all items."""
        return self._all()

    async def get(self, id: str) -> CandidateInterview:
        """Return one, with the time of its change."""
        self.reads.append(id)
        return self.items[id]


def _without_change(item: CandidateInterview) -> CandidateInterview:
    return CandidateInterview(id=item.id, candidate_id=item.candidate_id, status=item.status)


def interview(id: str, status: str, changed: datetime) -> CandidateInterview:
    """Return a candidate interview."""
    word = CandidateInterviewStatus(status)
    return CandidateInterview(id=id, candidate_id="c", status=word, updated_at=changed)


@pytest.mark.parametrize("lists_changes", [True, False])
async def test_catch_up(clock: VirtualClock, *, lists_changes: bool) -> None:
    """What the inbox has not seen since then is delivered once, marked; the rest is left alone."""
    now = datetime.fromtimestamp(clock.wall(), UTC)
    server = Server(
        [
            interview("reported", "new_response", now),
            interview("missed", "new_response", now),
            interview("invited", "invite_sent", now),
            interview("partial", "partially_completed", now),
            interview("old", "hired", now - timedelta(days=2)),
        ]
    )
    server.lists_changes = lists_changes
    hooks, seen = receiver(clock), list[tuple[str, str | None, bool]]()

    @hooks.on("candidate_interview.completed")
    async def done(event: CandidateInterviewCompleted) -> None:
        seen.append((event.event, event.candidate_interview_id, event.synthetic))

    name = "candidate_interview.completed"
    since = now - timedelta(days=1)
    async with hooks:
        await deliver(hooks, clock, name, candidateInterviewId="reported")
        assert await hooks.catch_up(server, since=since) == 1
        assert await hooks.catch_up(server, since=since) == 0
        reply = await deliver(hooks, clock, name, candidateInterviewId="missed")
        assert json.loads(reply.body)["status"] == "duplicate"
    assert sorted(seen) == [(name, "missed", True), (name, "reported", False)]
    assert server.reads == ([] if lists_changes else ["missed", "old", "old"])
    with pytest.raises(ConfigurationError):
        await hooks.catch_up(server, since=datetime(2026, 1, 1))  # noqa: DTZ001 - on purpose


async def test_catch_up_shows_status_changes(clock: VirtualClock) -> None:
    """Who wants status changes gets each state not reported yet, and waits out a full inbox."""
    now = datetime.fromtimestamp(clock.wall(), UTC)
    server = Server([interview("a", "archived", now), interview("b", "hired", now)])
    hooks, seen = receiver(clock, inbox=MemoryInbox(capacity=1, clock=clock)), list[Any]()

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        await clock.sleep(5)
        seen.append((event.event.rpartition(".")[2], event.data["status"]))

    with pytest.raises(ClientClosedError):
        await hooks.catch_up(server, since=now)
    async with hooks:
        assert await hooks.catch_up(server, since=now) == 2
        server.items["b"] = interview("b", "archived", now)
        assert await hooks.catch_up(server, since=now) == 1
    assert seen == [
        ("status_changed", "archived"),
        ("completed", "hired"),
        ("status_changed", "hired"),
        ("status_changed", "archived"),
    ]


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"timeout": 0}, {"attempts": True}, {"lease": 1e9}, {"cap": float("nan")}],
)
def test_handling_is_checked(options: Any) -> None:
    """A setting that can't work is refused where it is made."""
    with pytest.raises(ConfigurationError):
        HandlerPolicy(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"max_body": 0},
        {"body_timeout": 0},
        {"tolerance": -1},
        {"inbox": "events.db"},
        {"inbox": MemoryInbox},
        {"handling": None},
        {"on_dead_letter": 5},
    ],
)
def test_receiver_is_checked(options: Any) -> None:
    """An option that can't work is refused at construction, and the repr tells no secret."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        WebhookReceiver(SECRET, **options)
    with pytest.raises(ConfigurationError, match="on_dead_letter"):
        WebhookReceiver(SECRET).on_dead_letter(5)  # type: ignore[type-var]  # on purpose
    assert SECRET not in repr(WebhookReceiver(SECRET))


class FlakyInbox(MemoryInbox):
    """An inbox whose storage fails, or hangs, when reported."""

    failing_claims = 0
    hold: asyncio.Event | None = None

    async def claim(self, *arguments: Any, **options: Any) -> Any:
        """Fail some times, then claim."""
        if self.failing_claims:
            self.failing_claims -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return await super().claim(*arguments, **options)

    async def put(self, *arguments: Any, **options: Any) -> Any:
        """Put, and return only when allowed to."""
        taken = await super().put(*arguments, **options)
        if self.hold is not None:
            await self.hold.wait()
        return taken


async def test_worker_outlives_failing_storage(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When events can't be claimed for a while, handlers run as soon as they can.

    The log has one line when that begins, with the failure, and one when it ends.
    """
    inbox, seen = FlakyInbox(), list[str]()
    hooks = receiver(clock, inbox=inbox)

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        seen.append(event.event)

    inbox.failing_claims = 5
    async with hooks:
        await deliver(hooks, clock)
        await clock.sleep(10)
        assert seen == ["x"]
        inbox.failing_claims = 3
        assert (await deliver(hooks, clock, n=1)).status == 200
        await clock.sleep(10)
    lines = [each for each in caplog.records if "webhook inbox" in each.getMessage()]
    assert ["again until" in each.getMessage() for each in lines] == [True, False] * 2
    assert [each.exc_info is not None for each in lines] == [True, False] * 2


@pytest.mark.parametrize("has_listener", [False, True])
async def test_failing_storage_is_asked_once_a_second(
    clock: VirtualClock, *, has_listener: bool
) -> None:
    """While a shared inbox is away, what is overdue there, such as a renewal, hurries nothing."""

    class Shared(FlakyInbox):
        is_shared = True  # type: ignore[assignment]  # of other processes

    inbox = Shared(clock=clock)
    hooks = receiver(clock, inbox=inbox, handling=HandlerPolicy(lease=3.0, poll=0.1))
    started = asyncio.Event()
    if has_listener:
        hooks.subscribe(lambda *_: None)

    @hooks.on("*")
    async def slow(event: WebhookEvent) -> None:
        started.set()
        await clock.sleep(100.0)

    async with hooks:
        await deliver(hooks, clock)
        await started.wait()
        inbox.failing_claims, began = 30, clock.monotonic()
        while inbox.failing_claims:
            await clock.sleep(1.0)
        assert clock.monotonic() - began >= 29.0
        await clock.sleep(100.0)


async def test_cancelled_receive(clock: VirtualClock) -> None:
    """A delivery whose sender hung up while it was stored is handled all the same."""
    inbox, handled = FlakyInbox(), asyncio.Event()
    inbox.hold = asyncio.Event()
    hooks = receiver(clock, inbox=inbox)

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        handled.set()

    async with hooks:
        receiving = asyncio.create_task(deliver(hooks, clock))
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        await handled.wait()


async def test_cancelled_catch_up(clock: VirtualClock) -> None:
    """Cancelling `catch_up` ends it where it is."""

    class Endless(Server):
        async def _all(self) -> AsyncIterator[CandidateInterview]:
            await asyncio.Event().wait()
            yield interview("never", "hired", datetime.now(UTC))

    sweeping = asyncio.create_task(
        receiver(clock).catch_up(Endless([]), since=datetime(2026, 1, 1, tzinfo=UTC))
    )
    await asyncio.sleep(0)
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping


def test_loop_that_died(tmp_path: Path) -> None:
    """A loop that ended without closing the receiver leaves it usable, and its events kept."""
    inbox, seen = SQLiteInbox(tmp_path / "i.db"), list[str]()
    hooks = WebhookReceiver(SECRET, inbox=inbox)

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        seen.append(event.event)

    async def start_only() -> None:
        await hooks.start()

    async def again() -> None:
        body = sample_body("x")
        await hooks.receive(body, {"x-qualifi-signature": sign(body, secret=SECRET)})
        async with hooks:
            assert hooks.alive

    asyncio.run(start_only())
    asyncio.run(again())
    assert seen == ["x"]


async def test_what_another_process_completed_meanwhile_is_not_begun(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """A handler that waits for a slot doesn't run if it succeeded elsewhere after a lost lease."""

    class Ahead(VirtualClock):
        def wall(self) -> float:
            return clock.wall() + 3600.0

    path = tmp_path / "i.db"
    handling = HandlerPolicy(concurrency=2)
    hooks = receiver(clock, inbox=SQLiteInbox(path, clock=clock), handling=handling)
    begun, quick_ones = list[int](), list[int]()
    going_on = asyncio.Event()

    @hooks.on("*", name="slow")
    async def slow(event: WebhookEvent) -> None:
        begun.append(event.data["n"])
        await going_on.wait()

    @hooks.on("*", name="quick")
    async def quick(event: WebhookEvent) -> None:
        quick_ones.append(event.data["n"])

    elsewhere = SQLiteInbox(path, clock=Ahead())
    async with hooks:
        for n in range(2):
            assert (await deliver(hooks, clock, n=n)).status == 200
        await until(lambda: len(quick_ones) == 2)
        # To a process whose lease is over by its clock, both events are free.
        claims = (await elsewhere.claim(hooks.name, (), limit=9, lease=60.0)).events
        (second,) = (each for each in claims if each.event.decode().data["n"] == 1)
        await elsewhere.complete(second, "slow")
        await elsewhere.report([ClaimReport(claimed=second, due_in=0.0)])
        await clock.sleep(15.0)
        going_on.set()
        await clock.sleep(5.0)
        assert begun == [0]
        # The first waits for the end of its other lease, and is over then.
        assert await elsewhere.counts() == {EventState.WAITING: 1, EventState.DONE: 1}
    await elsewhere.aclose()


@pytest.mark.parametrize("make", [MemoryInbox, lambda: SQLiteInbox(":memory:")])
async def test_a_closed_receiver_is_not_woken_by_replays_any_more(
    make: Callable[[], MemoryInbox | SQLiteInbox],
) -> None:
    """An inbox keeps no receiver, such as those of earlier event loops, once it is closed."""
    inbox = make()
    for _ in range(3):
        async with WebhookReceiver("s1", inbox=inbox):
            assert len(inbox.replay_listeners) == 1
    assert not inbox.replay_listeners
