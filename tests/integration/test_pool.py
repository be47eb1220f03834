"""A pool's clients: a quota and waits for each key, one HTTP session for all."""

import asyncio
import gc
from inspect import signature
from typing import get_type_hints

import pytest
from aiohttp import TraceConfig

from gather_async import (
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    GatherClient,
    GatherPool,
    RateLimit,
)
from gather_async.pool import ClientOptions
from gather_async.protocol.rolling_windows import DEFAULT_RATE_LIMITS
from gather_async.quota import InProcessLimiter
from gather_async.testing import FakeGather, VirtualClock


class _ClosableLimiter(InProcessLimiter):
    """A limiter that holds something open."""

    closed = 0

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1


async def test_clients_of_one_key_share_quota_and_waits() -> None:
    """Two views of one key count together; another key has a quota of its own."""
    async with FakeGather() as fake, GatherPool(base_url=fake.base_url) as pool:
        await pool.for_key(fake.api_key).narrators.list()
        await pool.for_key(fake.api_key.encode()).narrators.list()
        used = pool.for_key(fake.api_key).rate_limit_status.windows[0].used
        other = pool.for_key("another").rate_limit_status.windows[0].used
    assert (used, other) == (2, 0)


async def test_all_keys_share_the_connections() -> None:
    """Calls of many keys go over one connection, one after the other."""
    opened: list[object] = []

    async def note(_: object, __: object, created: object) -> None:
        opened.append(created)

    trace = TraceConfig()
    trace.on_connection_create_end.append(note)
    async with FakeGather(rate_limits=()) as fake:
        async with GatherPool(base_url=fake.base_url, trace_configs=[trace]) as pool:
            await pool.for_key(fake.api_key).narrators.list()
            for number in range(20):
                with pytest.raises(AuthenticationError):
                    await pool.for_key(f"key{number}").with_options().narrators.list()
        assert (len(fake.requests), len(opened)) == (21, 1)


async def test_a_client_of_a_pool_is_closed_by_the_pool_alone() -> None:
    """One user of a key who closes its client ends nothing of another's; the pool ends all."""
    async with FakeGather() as fake:
        pool = GatherPool(base_url=fake.base_url)
        gather = pool.for_key(fake.api_key)
        async with pool.for_key(fake.api_key) as other:
            await other.narrators.list()
        await gather.narrators.list()
        await pool.aclose()
        await pool.aclose()
        with pytest.raises(ClientClosedError):
            await gather.narrators.list()
        with pytest.raises(ClientClosedError, match="pool"):
            pool.for_key(fake.api_key)
        with pytest.raises(ClientClosedError, match="pool"):
            await pool.__aenter__()


async def test_closing_the_pool_ends_what_waits_for_the_quota() -> None:
    """A call that waits for its key's quota ends with the error of a closed client."""
    async with FakeGather() as fake:
        pool = GatherPool(base_url=fake.base_url, rate_limits=[RateLimit(1, per=60)])
        gather = pool.for_key(fake.api_key)
        await gather.narrators.list()
        waiting = asyncio.ensure_future(gather.narrators.get("narrator"))
        await asyncio.sleep(0)
        await pool.aclose()
        with pytest.raises(ClientClosedError):
            await waiting


async def test_a_key_is_forgotten_once_nothing_counts_against_its_quota() -> None:
    """Its limiter lives for the longest window after its last use, and for as long as its user."""
    clock = VirtualClock()
    async with (
        FakeGather(clock=clock) as fake,
        GatherPool(base_url=fake.base_url, clock=clock) as pool,
    ):
        await pool.for_key(fake.api_key).narrators.list()
        kept = pool.for_key("kept")
        await clock.advance(3500.0)
        pool.for_key("later")
        gc.collect()
        assert pool.for_key(fake.api_key).rate_limit_status.windows[1].used == 1
        await clock.advance(3700.0)
        for _ in range(4):
            pool.for_key("later")
        gc.collect()
        assert repr(pool).endswith("open, 1 keys>")
        assert pool.for_key("kept") is kept


async def test_a_resource_keeps_the_quota_of_its_key() -> None:
    """Who holds a resource alone shares the quota with the client that the key gets next."""
    clock = VirtualClock()
    async with (
        FakeGather(clock=clock) as fake,
        GatherPool(base_url=fake.base_url, clock=clock) as pool,
    ):
        narrators = pool.for_key(fake.api_key).narrators
        await clock.advance(3700.0)
        for _ in range(2):
            pool.for_key("later")
        gc.collect()
        await narrators.list()
        assert pool.for_key(fake.api_key).rate_limit_status.windows[1].used == 1


async def test_limiters_of_ones_own_are_made_once_a_key_and_closed() -> None:
    """The function is called with the key; what it made is closed with the pool."""
    made: dict[str, _ClosableLimiter] = {}

    def make(key: str) -> _ClosableLimiter:
        assert key not in made
        made[key] = _ClosableLimiter(DEFAULT_RATE_LIMITS, clock=VirtualClock())
        return made[key]

    async with GatherPool(make) as pool:
        clients = [pool.for_key(key) for key in ("a", "b", "a")]
        assert [client.limiter for client in clients] == [made["a"], made["b"], made["a"]]
    assert [limiter.closed for limiter in made.values()] == [1, 1]


@pytest.mark.parametrize("key", [None, "", " ", 5, "two\nlines"])
async def test_what_is_no_key_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant without a key never gets the environment's."""
    monkeypatch.setenv("GATHER_API_KEY", "the operator's")
    async with GatherPool() as pool:
        with pytest.raises(ConfigurationError):
            pool.for_key(key)


def test_options_are_checked_when_the_pool_is_made() -> None:
    """A bad option, and a limiter for all keys, are refused before any key comes."""
    with pytest.raises(ConfigurationError, match="timeout"):
        GatherPool(timeout=-1)
    limiter = InProcessLimiter(DEFAULT_RATE_LIMITS, clock=VirtualClock())
    with pytest.raises(ConfigurationError, match="function of the API key"):
        GatherPool(limiter)  # type: ignore[arg-type]

    async def make(_: str) -> InProcessLimiter:
        return limiter

    with pytest.raises(ConfigurationError, match="not async"):
        GatherPool(make)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="for_key"):
        GatherPool(api_key="qapi_one")  # type: ignore[call-arg]


def test_a_pool_takes_every_option_of_a_client() -> None:
    """Both lists of options are one, with the same types."""
    client = get_type_hints(GatherClient.__init__)
    expected = {
        name: client[name]
        for name in signature(GatherClient).parameters
        if name not in {"api_key", "limiter"}
    }
    assert get_type_hints(ClientOptions) == expected


async def test_keys_are_not_shown() -> None:
    """No repr of a pool or of a client of it holds a key."""
    async with GatherPool() as pool:
        assert "hidden" not in repr(pool) + repr(pool.for_key("hidden"))
