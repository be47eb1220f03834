"""Several receivers on one inbox: processes, deployments, tenants, slow handlers."""

import asyncio
import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gather_async.errors import ConfigurationError
from gather_async.testing import VirtualClock
from gather_async.webhooks import (
    DeadLetter,
    EventState,
    HandlerPolicy,
    SQLiteInbox,
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


def receiver(clock: VirtualClock, folder: Path | None = None, **options: Any) -> WebhookReceiver:
    """Return a receiver in virtual time, on the folder's inbox if one is given."""
    inbox = None if folder is None else SQLiteInbox(folder / "i.db", clock=clock)
    return WebhookReceiver(options.pop("secret", SECRET), clock=clock, inbox=inbox, **options)


async def deliver(
    hooks: WebhookReceiver,
    clock: VirtualClock,
    event: str = "x",
    *,
    secret: str = SECRET,
    path: str | None = None,
    **data: Any,
) -> WebhookReply:
    """Deliver an event that is signed now."""
    body = sample_body(event, data=data, at=datetime.fromtimestamp(0, UTC))
    headers = {"X-Qualifi-Signature": sign(body, secret=secret, timestamp=clock.wall())}
    return await hooks.receive(body, headers, path=path)


async def test_renamed_handler(clock: VirtualClock, tmp_path: Path) -> None:
    """An event on which a handler failed goes to what replaced it, not to what succeeded."""
    before, after = receiver(clock, tmp_path), receiver(clock, tmp_path)
    runs: list[str] = []

    async def bad(event: WebhookEvent) -> None:
        raise ValueError

    async def note(event: WebhookEvent) -> None:
        runs.append("note")

    async def new(event: WebhookEvent) -> None:
        runs.append("new")

    before.on("*", name="old")(bad)
    before.on("*", name="note")(note)
    after.on("*", name="new")(new)
    after.on("*", name="note")(note)
    async with before:
        await deliver(before, clock)
        await clock.sleep(0.1)
    async with after:
        await clock.sleep(5)
    assert runs == ["note", "new"]


async def test_rolling_deployment(clock: VirtualClock, tmp_path: Path) -> None:
    """An event reaches each handler of each process, whichever process received it."""
    runs: list[tuple[str, Any]] = []
    wanted = {"old": ["both"], "new": ["both", "added"], "web": []}
    receivers = [receiver(clock, tmp_path) for _ in wanted]
    for hooks, names in zip(receivers, wanted.values(), strict=True):
        for name in names:

            async def note(event: WebhookEvent, name: str = name) -> None:
                runs.append((name, event.data["n"]))

            hooks.on("*", name=name)(note)
    async with contextlib.AsyncExitStack() as stack:
        for hooks in receivers:
            await stack.enter_async_context(hooks)
        await clock.sleep(1)  # all have announced their handlers by then
        for n in range(9):
            await deliver(receivers[n % 3], clock, n=n)
        await clock.sleep(10)
        counts = await receivers[2].inbox.counts()
    assert sorted(runs) == [(name, n) for name in ("added", "both") for n in range(9)]
    assert {state: count for state, count in counts.items() if count} == {EventState.DONE: 9}


async def test_handlers_of_others_outlive_the_storage(clock: VirtualClock, tmp_path: Path) -> None:
    """A file that was deleted takes the list of handlers along; no event is over without one."""
    one, other = receiver(clock, tmp_path), receiver(clock, tmp_path)
    runs: list[str] = []

    @one.on("*", name="one")
    async def first(event: WebhookEvent) -> None:
        runs.append(f"one {event.data['n']}")

    @other.on("*", name="other")
    async def second(event: WebhookEvent) -> None:
        runs.append(f"other {event.data['n']}")

    async with one, other:
        await deliver(one, clock, n=0)
        await clock.sleep(3)
        for path in tmp_path.iterdir():
            path.unlink()
        for n in (1, 2):
            assert (await deliver(one, clock, n=n)).status == 200
        await clock.sleep(3)
        assert sorted(runs) == [f"{name} {n}" for name in ("one", "other") for n in range(3)]


async def test_handlers_are_known_once_it_runs(clock: VirtualClock, tmp_path: Path) -> None:
    """Another process that claims an event right after the start leaves it to these handlers."""
    hooks = receiver(clock, tmp_path)

    @hooks.on("interview.updated", name="note")
    async def note(event: WebhookEvent) -> None: ...

    async with hooks:
        found = await hooks.inbox.claim(hooks.name, (), limit=0, lease=1.0)
    assert found.handlers == {"note": {"interview.updated"}}


async def test_deliveries_that_come_together_start_it_once(tmp_path: Path) -> None:
    """Without a lifespan the first delivery starts the receiver, and those beside it don't."""
    hooks = WebhookReceiver(SECRET, inbox=SQLiteInbox(tmp_path / "absent" / "i.db"))
    assert not await hooks.ensure_started()
    (tmp_path / "absent").mkdir()
    assert all(await asyncio.gather(*(hooks.ensure_started() for _ in range(5))))
    workers = [task for task in asyncio.all_tasks() if task.get_name() == "webhook worker"]
    assert len(workers) == 1
    await hooks.aclose()


async def test_closed_while_it_starts(tmp_path: Path) -> None:
    """A receiver that is closed before its inbox is open doesn't run afterwards."""
    hooks = WebhookReceiver(SECRET, inbox=SQLiteInbox(tmp_path / "i.db"))
    starting = asyncio.create_task(hooks.start())
    await asyncio.sleep(0)
    await hooks.aclose()
    await starting
    assert not hooks.alive
    assert "webhook worker" not in {task.get_name() for task in asyncio.all_tasks()}
    await hooks.aclose()


async def test_handlers_of_other_events(clock: VirtualClock, tmp_path: Path) -> None:
    """A process leaves the events that only another wants to it, even while that is away."""
    web, worker = receiver(clock, tmp_path), receiver(clock, tmp_path)
    runs: list[str] = []

    async def note(event: WebhookEvent) -> None:
        runs.append(event.event)

    web.on("interview.created", name="web")(note)
    worker.on("interview.updated", name="worker")(note)
    async with worker:
        await clock.sleep(1)
    async with web:
        await deliver(web, clock, "interview.updated")
        await deliver(web, clock, "interview.created")
        await clock.sleep(5)
        assert runs == ["interview.created"]
        async with worker:
            await clock.sleep(2)
    assert runs == ["interview.created", "interview.updated"]


@pytest.mark.parametrize("kind", ["file", "memory", "sqlite in memory"])
async def test_what_no_handler_wants_is_ignored(
    clock: VirtualClock, tmp_path: Path, kind: str
) -> None:
    """An event that no handler wants is kept, and handled after a replay; others pass it by."""
    hooks, seen = receiver(clock, tmp_path if kind == "file" else None), list[str]()
    if kind == "sqlite in memory":
        inbox = SQLiteInbox(":memory:", clock=clock)
        hooks = WebhookReceiver(SECRET, inbox=inbox, clock=clock)

    async def note(event: WebhookEvent) -> None:
        seen.append(event.event)

    hooks.on("interview.created")(note)
    async with hooks:
        for n in range(30):
            await deliver(hooks, clock, "interview.updated", n=n)
        await deliver(hooks, clock, "interview.created")
        await clock.sleep(2)
        assert seen == ["interview.created"]
        entries = await hooks.inbox.list(state=EventState.IGNORED)
        assert len(entries) == 30
        hooks.on("interview.updated")(note)
        await hooks.inbox.replay([entries[0].event.key])
        await clock.sleep(2)
        assert seen == ["interview.created", "interview.updated"]


async def test_hanging_handler_starves_no_other(clock: VirtualClock, tmp_path: Path) -> None:
    """While one handler hangs on every event, the other gets each."""
    hooks = receiver(clock, tmp_path, handling=HandlerPolicy(concurrency=2, timeout=1000, drain=1))
    seen: list[Any] = []

    @hooks.on("*", name="hangs")
    async def hangs(event: WebhookEvent) -> None:
        await asyncio.Event().wait()

    @hooks.on("*", name="quick")
    async def quick(event: WebhookEvent) -> None:
        seen.append(event.data["n"])

    async with hooks:
        for n in range(60):
            await deliver(hooks, clock, n=n)
        await clock.sleep(30)
        assert sorted(seen) == list(range(60))
    assert sorted(seen) == list(range(60))


async def test_receivers_of_other_secrets_and_names(clock: VirtualClock, tmp_path: Path) -> None:
    """Receivers with other secrets or names get their own events, each once, on one inbox."""
    seen: list[str] = []
    options: dict[str, dict[str, Any]] = {
        "a": {"secret": "secret a"},
        "b": {"secret": "secret b"},
        "c": {"secret": "secret b", "name": "c"},
    }
    receivers = {name: receiver(clock, tmp_path, **given) for name, given in options.items()}
    for name, hooks in receivers.items():

        async def note(event: WebhookEvent, name: str = name) -> None:
            seen.append(name)

        hooks.on("*", name="note")(note)
    async with receivers["a"], receivers["b"], receivers["c"]:
        for name, hooks in receivers.items():
            for _ in range(2):
                await deliver(hooks, clock, secret=options[name]["secret"])
        await clock.sleep(2)
    assert sorted(seen) == ["a", "b", "c"]
    with pytest.raises(ConfigurationError, match="name"):
        receiver(clock, name="a/b")


async def test_secret_that_is_replaced(clock: VirtualClock, tmp_path: Path) -> None:
    """What came under the old secret is handled, and recognised, under the new one beside it."""
    old = receiver(clock, tmp_path, secret="old")
    new = receiver(clock, tmp_path, secret=["new", "old"])
    seen: list[str] = []
    assert (await deliver(old, clock, secret="old")).status == 200
    await old.aclose()

    @new.on("*")
    async def note(event: WebhookEvent) -> None:
        seen.append(event.event)

    async with new:
        assert "duplicate" in (await deliver(new, clock, secret="old")).body
    assert seen == ["x"]


@pytest.mark.parametrize("kind", ["mapping", "function", "async function"])
async def test_tenants(clock: VirtualClock, kind: str) -> None:
    """The tenant in the path chooses the secret; events know it, unknown ones are 404."""
    table = {"acme": "s1", "globex": ["s3", "s2"]}

    async def find(tenant: str) -> Any:
        return table.get(tenant)

    secrets: Any = {"mapping": table, "function": table.get, "async function": find}[kind]
    hooks = receiver(clock, secret=None, secrets=secrets)
    seen: list[Any] = []

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        seen.append(event.tenant)

    async def status(secret: str, path: str) -> int:
        return (await deliver(hooks, clock, secret=secret, path=path)).status

    async with hooks:
        assert await status("s1", "/webhooks/gather/acme") == 200
        assert await status("s2", "/hooks/globex/") == 200
        assert await status("s1", "/webhooks/gather/globex") == 401
        assert await status("s1", "/webhooks/gather/unknown") == 404
        assert await status("s2", "/webhooks/gather") == (200 if kind == "mapping" else 404)
        await clock.sleep(1)
    assert sorted(seen) == ["acme", "globex"]


@pytest.mark.parametrize("secrets", [{"acme": ""}, {"acme": "a\n"}, {"acme": 5}, 7])
def test_tenants_secrets_are_checked(secrets: Any) -> None:
    """A tenant's secret that can't work is refused at construction, by the tenant's name."""
    with pytest.raises(
        ConfigurationError, match="acme" if isinstance(secrets, dict) else "mapping"
    ):
        WebhookReceiver(secrets=secrets)
    for both in ({"secret": "s", "secrets": {"a": "b"}}, {}):
        with pytest.raises(ConfigurationError, match="one of the two"):
            WebhookReceiver(**both)  # type: ignore[arg-type]  # on purpose


async def test_exit_in_a_handler(clock: VirtualClock) -> None:
    """``sys.exit()`` in a handler is a failure of that handler, not the end of the server."""
    letters: list[DeadLetter] = []
    hooks = receiver(clock, handling=HandlerPolicy(attempts=1), on_dead_letter=letters.append)

    @hooks.on("*", name="exits")
    async def exits(event: WebhookEvent) -> None:
        sys.exit("enough")

    async with hooks:
        await deliver(hooks, clock)
        await clock.sleep(1)
    (letter,) = letters
    assert letter.error.startswith("SystemExit: ")
    assert letter.handler == "exits"


async def test_exit_in_listeners(clock: VirtualClock) -> None:
    """``sys.exit()`` in a listener or in ``on_dead_letter`` doesn't end the server, either."""
    hooks = receiver(clock, handling=HandlerPolicy(attempts=1))
    runs: list[str] = []
    hooks.subscribe(lambda *_: sys.exit("listener"))

    @hooks.on("*", name="fails")
    async def fails(event: WebhookEvent) -> None:
        runs.append(event.event)
        raise ValueError

    @hooks.on_dead_letter
    def leave(letter: DeadLetter) -> None:
        runs.append(letter.handler)
        sys.exit("callback")

    async with hooks:
        for number in range(2):
            assert (await deliver(hooks, clock, number=number)).status == 200
            await clock.sleep(1)
    assert runs == ["x", "fails"] * 2


@pytest.mark.parametrize("is_stubborn", [False, True])
async def test_dead_letter_callback_that_hangs(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, *, is_stubborn: bool
) -> None:
    """Closing waits for ``on_dead_letter`` no longer than for handlers, and cancels it then."""
    monkeypatch.setattr("gather_async.webhooks.dead_letters.STUBBORN", 0.01)
    hooks = receiver(clock, handling=HandlerPolicy(attempts=1, drain=5))
    ended, released = list[str](), asyncio.Event()

    @hooks.on("*")
    async def fails(event: WebhookEvent) -> None:
        raise ValueError

    @hooks.on_dead_letter
    async def hang(letter: DeadLetter) -> None:
        try:
            await released.wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            if is_stubborn:
                await released.wait()
            raise

    async with hooks:
        await deliver(hooks, clock)
        await clock.sleep(1)
        before = clock.monotonic()
    assert clock.monotonic() - before == pytest.approx(5, abs=0.1)
    assert ended == ["cancelled"]
    released.set()
    await asyncio.sleep(0)


async def test_other_processes_wake_waiters(clock: VirtualClock, tmp_path: Path) -> None:
    """An event that one process stores reaches the subscribers of all within 0.3 s, once."""
    both = [receiver(clock, tmp_path) for _ in range(2)]
    events: list[list[Any]] = [[], []]
    for hooks, found in zip(both, events, strict=True):

        def note(event: str, ids: frozenset[str], found: list[Any] = found) -> None:
            found.append((event, ids, clock.monotonic()))

        hooks.subscribe(note)
    async with both[0], both[1]:
        await clock.sleep(1)
        at = clock.monotonic()
        await deliver(both[0], clock, "question.audio_generated", questionId="q")
        await clock.sleep(1)
    for found in events:
        ((event, ids, moment),) = found
        assert (event, ids) == ("question.audio_generated", {"q"})
        assert moment - at <= 0.3


async def test_completion_inside_a_handler(clock: VirtualClock) -> None:
    """A handler that recorded its completion isn't run again, though it failed after it."""
    hooks, runs = receiver(clock), list[str]()

    @hooks.on("*")
    async def note(event: WebhookEvent) -> None:
        runs.append(event.event)
        await hooks.complete()
        raise ValueError

    with pytest.raises(ConfigurationError):
        await hooks.complete()
    async with hooks:
        await deliver(hooks, clock)
        await clock.sleep(30)
    assert runs == ["x"]
