"""The connection to a Redis server: deadlines, cancellations, loops, threads, forks, secrets."""

import asyncio
import os
import random
import subprocess
import sys
import threading

import pytest
import redis
import redis.asyncio
from redis.asyncio import Redis

from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.redis.connection import RedisConnection, RedisError, Script, decoded
from tests.servers import RedisServer

_ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
_GET = Script("return redis.call('GET', KEYS[1])")


async def test_a_script_is_sent_whole_only_to_a_server_that_lacks_it(
    redis_server: RedisServer, redis_url: str
) -> None:
    """A script runs by its digest, and again after the server forgot it."""
    connection = RedisConnection(redis_url, timeout=5.0)
    assert await connection.run(_ADD, ["n"], [2]) == 2
    assert await connection.run(_ADD, ["n"], [3]) == 5
    redis_server.clear()
    assert await connection.run(_ADD, ["n"], [7]) == 7
    stats = await connection.call(lambda client: client.info("commandstats"))
    assert stats["cmdstat_eval"]["calls"] >= 2
    await connection.aclose()


async def test_a_call_ends_when_its_time_is_over(redis_url: str) -> None:
    """A server that does not answer costs a call its timeout, and the next call works."""
    connection = RedisConnection(redis_url, timeout=5.0)
    await connection.call(lambda client: client.set("n", 1))
    await connection.call(lambda client: client.execute_command("CLIENT", "PAUSE", 200, "WRITE"))
    with pytest.raises(RedisError, match="took too long"):
        await connection.call(lambda client: client.incr("n"), timeout=0.05)
    assert await connection.call(lambda client: client.get("n")) in {b"1", b"2"}
    await connection.aclose()


async def test_many_calls_at_once_share_few_connections(redis_url: str) -> None:
    """Two hundred calls at once all succeed, by no more than sixteen connections."""
    connection = RedisConnection(redis_url, timeout=20.0)
    replies = await asyncio.gather(*(connection.run(_ADD, ["n"], [1]) for _ in range(200)))
    assert sorted(replies) == list(range(1, 201))
    clients = await connection.call(lambda client: client.client_list())
    assert len(clients) <= 16
    await connection.aclose()


async def test_no_cancellation_is_swallowed(redis_url: str) -> None:
    """A task that is cancelled in the midst of its calls ends, wherever it was."""
    rng = random.Random(1)
    connection = RedisConnection(redis_url, timeout=5.0)

    async def call_for_ever() -> None:
        while True:
            await connection.call(lambda client: client.ping())

    for _ in range(100):
        task = asyncio.create_task(call_for_ever())
        for _ in range(rng.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5.0)
        assert done == {task}
        assert task.cancelled()
    await connection.aclose()


async def test_a_restart_of_the_server_costs_a_call_at_most(
    redis_server: RedisServer, redis_url: str
) -> None:
    """Connections that the server closed while they were idle are replaced, all at once."""
    connection = RedisConnection(redis_url, timeout=5.0)
    await asyncio.gather(*(connection.call(lambda client: client.ping()) for _ in range(5)))
    redis_server.stop()
    redis_server.start()
    for _ in range(5):  # the loop learns of it
        await asyncio.sleep(0)
    failed = 0
    for _ in range(5):
        try:
            await connection.call(lambda client: client.ping())
        except RedisError:
            failed += 1
    # redis-py 5 doesn't see that the server has closed a connection.
    assert failed <= (redis.__version__ < "6")
    await connection.aclose()


async def test_a_timeout_of_the_url_is_not_redis_pys(redis_url: str) -> None:
    """``socket_timeout`` in a URL, which would swallow cancellations, has no effect."""
    connection = RedisConnection(redis_url + "?socket_timeout=1", timeout=5.0)
    client = await connection.client()
    assert isinstance(client, Redis)
    assert client.connection_pool.connection_kwargs["socket_timeout"] is None
    await connection.aclose()


def test_each_loop_has_a_client_of_its_own(redis_url: str) -> None:
    """A connection serves loops one after the other, and several at once in threads."""
    connection = RedisConnection(redis_url, timeout=5.0)

    async def add() -> int:
        return int(await connection.run(_ADD, ["n"], [1]))

    assert [asyncio.run(add()) for _ in range(3)] == [1, 2, 3]
    together = threading.Barrier(3)

    async def add_together() -> None:
        await add()
        await asyncio.to_thread(together.wait, 10.0)
        await add()

    threads = [threading.Thread(target=lambda: asyncio.run(add_together())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(add()) == 10
    asyncio.run(connection.aclose())


def test_the_end_of_a_loop_ends_no_calls_of_another(redis_url: str) -> None:
    """A loop that came while another was about to end goes on after it has ended."""
    connection = RedisConnection(redis_url, timeout=5.0)

    async def add() -> int:
        return int(await connection.run(_ADD, ["n"], [1]))

    with asyncio.Runner() as second:
        with asyncio.Runner() as first:
            assert first.run(add()) == 1
            assert second.run(add()) == 2
        assert second.run(add()) == 3
        second.run(connection.aclose())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_uses_none_of_its_parents_sockets(redis_url: str) -> None:
    """Parent and child go on after a fork, each with connections of its own."""
    program = f"""
import asyncio, os, sys
from gather_async.redis.connection import RedisConnection
connection = RedisConnection({redis_url!r}, timeout=5.0)
async def number():
    return await connection.call(lambda client: client.client_id())
async def main():
    before = await number()
    child = os.fork()
    if child == 0:
        asyncio.events._set_running_loop(None)
        os._exit(0 if asyncio.run(number()) != before else 1)
    _, status = os.waitpid(child, 0)
    assert await number() == before
    await connection.aclose()
    return os.waitstatus_to_exitcode(status)
sys.exit(asyncio.run(main()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_failure_names_the_server_and_no_secret() -> None:
    """A message has host and port, never what stands before them in the URL."""
    connection = RedisConnection("redis://user:hunter2@127.0.0.1:1/0", timeout=5.0)
    with pytest.raises(RedisError) as failed:
        await connection.call(lambda client: client.ping())
    assert "127.0.0.1:1" in repr(connection)
    assert "hunter2" not in f"{failed.value!r} {failed.value.__cause__!r} {connection!r}"
    await connection.aclose()


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@host", "redis://:hunter2/x@host", "hunter2", None, 5, b"\xff"]
)
def test_a_url_that_cannot_be_read_is_refused(url: object) -> None:
    """The refusal doesn't repeat the URL, which may hold a password."""
    with pytest.raises(ConfigurationError, match="redis") as refused:
        RedisConnection(url, timeout=1.0)  # type: ignore[arg-type]  # that is the test
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_synchronous_client_is_refused() -> None:
    """Only clients of `redis.asyncio` fit: another would block the loop."""
    with pytest.raises(ConfigurationError, match=r"redis\.asyncio, not Redis"):
        RedisConnection(redis.Redis(), timeout=1.0)  # type: ignore[arg-type]  # that is the test


async def test_a_lent_client_is_used_and_not_closed(redis_url: str) -> None:
    """A client with options of its own is used as it is, and works on after `aclose`."""
    lent = redis.asyncio.Redis.from_url(redis_url, decode_responses=True)
    connection = RedisConnection(lent, timeout=5.0)
    await connection.call(lambda client: client.set("n", "x"))
    assert await connection.run(_GET, ["n"]) == decoded(b"x") == "x"
    await connection.aclose()
    assert await lent.get("n") == "x"
    with pytest.raises(ClientClosedError):
        await connection.call(lambda client: client.get("n"))
    await lent.aclose()


def test_without_redis_py_the_extra_is_named() -> None:
    """Importing `gather_async.redis` without redis-py says what to install."""
    program = "import sys; sys.modules['redis'] = None; import gather_async.redis"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "ConfigurationError" in done.stderr
    assert "pip install 'gather-async[redis]'" in done.stderr
