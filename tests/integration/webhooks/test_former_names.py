"""Receivers that had another name before: what waits under it, and its dead letters, are theirs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gather_async.errors import ConfigurationError
from gather_async.postgres import PostgresInbox
from gather_async.redis import RedisInbox
from gather_async.webhooks import (
    EventState,
    HandlerPolicy,
    Inbox,
    MemoryInbox,
    SignedSample,
    SQLiteInbox,
    WebhookEvent,
    WebhookReceiver,
    sample,
)

SECRET = "s3cret"
ONCE = HandlerPolicy(attempts=1)
TENANTS: dict[str, Any] = {"secrets": {"acme": SECRET}}
NAMED: dict[str, Any] = {"secret": SECRET, "name": "crm"}


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
async def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Inbox]:
    """Return an empty inbox of each kind."""
    makers: dict[str, Callable[[], Inbox]] = {
        "memory": MemoryInbox,
        "sqlite": lambda: SQLiteInbox(tmp_path / "i.db"),
        "redis": lambda: RedisInbox(request.getfixturevalue("redis_url")),
        "postgres": lambda: PostgresInbox(request.getfixturevalue("postgres_url")),
    }
    inbox = makers[request.param]()
    yield inbox
    await inbox.aclose()


async def deliver(hooks: WebhookReceiver, delivery: SignedSample) -> str:
    """Deliver an event, which is taken; return whether it was new."""
    reply = await hooks.receive(delivery.body, delivery.headers)
    assert reply.status == 200
    return reply.body


def recorder(hooks: WebhookReceiver) -> list[str]:
    """Return where a handler notes the events that it gets."""
    seen: list[str] = []

    @hooks.on("*", name="note")
    async def note(event: WebhookEvent) -> None:
        seen.append(event.event)

    return seen


async def until(condition: Callable[[], bool]) -> None:
    """Give way until something is so."""
    while not condition():  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("options", [NAMED, TENANTS], ids=["name", "secrets"])
async def test_what_waits_is_handled(inbox: Inbox, options: dict[str, Any]) -> None:
    """Events stored before it had its name are handled; those of others are left alone.

    A repetition of one is recognised, unless it belongs to a tenant now, which makes it another.
    """
    before, other = WebhookReceiver(SECRET, inbox=inbox), WebhookReceiver("another", inbox=inbox)
    delivery = sample("interview.updated", secret=SECRET)
    assert "taken" in await deliver(before, delivery)
    assert "taken" in await deliver(other, sample("interview.created", secret="another"))
    hooks = WebhookReceiver(**options, inbox=inbox, former_names=[before.name])
    assert hooks.name != before.name
    seen = recorder(hooks)
    async with hooks:
        await until(lambda: seen == ["interview.updated"])
        assert ("duplicate" in await deliver(hooks, delivery)) is (options is NAMED)
        assert "taken" in await deliver(hooks, sample("question.audio_generated", secret=SECRET))
        await until(lambda: "question.audio_generated" in seen)
    waiting = await inbox.list(state=EventState.WAITING)
    assert [each.event.name for each in waiting] == ["interview.created"]


@pytest.mark.parametrize("change", ["replay", "discard"])
async def test_dead_letters_are_its_own(inbox: Inbox, change: str) -> None:
    """A dead letter from before is listed, and replayed at once or given up, like any other."""
    before, dead = WebhookReceiver(SECRET, inbox=inbox, handling=ONCE), asyncio.Event()

    @before.on("*", name="note")
    async def fail(event: WebhookEvent) -> None:
        raise ValueError

    before.on_dead_letter(lambda _: dead.set())
    async with before:
        await deliver(before, sample("interview.updated", secret=SECRET))
        await dead.wait()
    hooks = WebhookReceiver(**NAMED, inbox=inbox, former_names=[before.name])
    seen = recorder(hooks)
    async with hooks:
        assert len(await hooks.dead_letters()) == 1
        assert len(await hooks.dead_letters(limit=1)) == 1
        assert await getattr(hooks, change)() == 1
        if change == "replay":
            await until(lambda: seen == ["interview.updated"])
        assert not await hooks.dead_letters()
    assert await hooks.replay() == 0
    await hooks.aclose()


async def test_dead_letters_of_a_replaced_secret() -> None:
    """The letters of a handler that failed under the secret from before are listed by their age."""
    inbox, dead = MemoryInbox(), asyncio.Queue[str]()
    for secrets in (["old"], ["new", "old"]):
        hooks = WebhookReceiver(secrets, inbox=inbox, handling=ONCE)

        @hooks.on("*", name="note")
        async def fail(event: WebhookEvent) -> None:
            raise ValueError

        hooks.on_dead_letter(lambda letter: dead.put_nowait(letter.event.event))
        async with hooks:
            event = "interview.created" if len(secrets) == 1 else "interview.updated"
            await deliver(hooks, sample(event, secret="old"))
            assert await dead.get() == event
    letters = await hooks.dead_letters()
    assert [each.event.event for each in letters] == ["interview.created", "interview.updated"]
    assert len(await hooks.dead_letters(limit=1)) == 1


@pytest.mark.parametrize("former_names", ["crm", None, 5, [""], ["a/b"], [None]])
def test_former_names_are_checked(former_names: Any) -> None:
    """What can't be a list of names is refused at construction."""
    with pytest.raises(ConfigurationError, match="name"):
        WebhookReceiver(SECRET, former_names=former_names)
