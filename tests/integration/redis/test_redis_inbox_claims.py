"""Claims of a Redis inbox whose reply reaches no one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gather_async.redis import RedisInbox
from gather_async.testing.inbox_laws import event
from gather_async.webhooks import ClaimedEvent, ClaimReport


class _Deaf(Redis):
    """A client that gets no reply to a claim, though the server has carried it out."""

    error: Exception | None = None
    has_claimed: asyncio.Event

    async def evalsha(self, sha: str, numkeys: int, *given: Any) -> Any:
        """Run a script."""
        reply = await super().evalsha(sha, numkeys, *given)
        if given[1] != "claim":
            return reply
        self.has_claimed.set()
        if self.error is not None:
            raise self.error
        return await asyncio.Event().wait()


@pytest.fixture
async def inbox(redis_url: str) -> AsyncIterator[RedisInbox]:
    """An empty inbox."""
    inbox = RedisInbox(redis_url)
    yield inbox
    await inbox.aclose()


@pytest.fixture
async def deaf(redis_url: str) -> AsyncIterator[_Deaf]:
    """A client for an inbox that gets no reply to its claims."""
    client = _Deaf.from_url(redis_url)
    assert isinstance(client, _Deaf)
    client.has_claimed = asyncio.Event()
    yield client
    await client.aclose()


async def _claim(inbox: RedisInbox, *handlers: str, limit: int = 9) -> list[ClaimedEvent]:
    return list((await inbox.claim("", handlers, limit=limit, lease=3600)).events)


@pytest.mark.parametrize(
    "error", [None, RedisTimeoutError(), RedisConnectionError()], ids=lambda each: f"{each!r}"
)
async def test_a_claim_that_reaches_no_one_is_given_back(
    inbox: RedisInbox, deaf: _Deaf, error: Exception | None
) -> None:
    """Its events are due at once, each for whom it waited, and count no crash."""
    await inbox.announce("", {"a": {"*"}, "b": {"*"}}, keep_for=60)
    for key in ("another's", "b's", "any"):
        await inbox.put(event(key))
    await _claim(inbox, limit=1)
    (claimed,) = await _claim(inbox, limit=1)
    await inbox.report([ClaimReport(claimed=claimed, due_in=0.0, waits_for="b")])
    deaf.error = error
    lossy = RedisInbox(deaf)
    claiming = asyncio.create_task(_claim(lossy, "a", "b"))
    await deaf.has_claimed.wait()
    if error is None:
        assert await _claim(inbox, "a", "b") == []
        claiming.cancel()
    with pytest.raises(asyncio.CancelledError if error is None else type(error)):
        await claiming
    for handler, key in (("a", "any"), ("b", "b's")):
        (claimed,) = await _claim(inbox, handler)
        assert (claimed.event.key, claimed.crashes) == (key, 0)
    await lossy.aclose()


async def test_a_claim_that_comes_after_its_end_brings_nothing(
    inbox: RedisInbox, redis_url: str
) -> None:
    """A server that was stopped may carry the calls of two connections out in any order."""
    await inbox.put(event())
    spec = ("", 9, 60_000, "token")
    await inbox._run("give_back", *spec)
    assert (await inbox._run("claim", *spec))[2] == []
    assert len(await _claim(inbox)) == 1
    async with Redis.from_url(redis_url) as redis:
        assert 0 < await redis.pttl("gather:{inbox:webhooks}:gone:token") <= 60_000


async def test_a_second_cancellation_is_not_held_up(inbox: RedisInbox, deaf: _Deaf) -> None:
    """A caller who can't wait for the events to be given back cancels again; the lease will end."""
    await inbox.put(event())
    lossy = RedisInbox(deaf)
    claiming = asyncio.create_task(_claim(lossy))
    await deaf.has_claimed.wait()
    for _ in range(2):
        claiming.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await claiming
    await lossy.aclose()
