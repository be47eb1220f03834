"""The servers that other tests run against are real, empty, and can be restarted."""

import psycopg
from redis.asyncio import Redis

from tests.servers import PostgresServer, RedisServer


async def test_redis_is_empty_and_real(redis_url: str) -> None:
    """The Redis server keeps what it is given, and knows scripts."""
    async with Redis.from_url(redis_url) as redis:
        assert await redis.dbsize() == 0
        await redis.set("kept", "1")
        assert await redis.eval("return redis.call('GET', KEYS[1])", 1, "kept") == b"1"


async def test_redis_restarts_where_it_was(redis_url: str, redis_server: RedisServer) -> None:
    """A Redis server that was stopped starts again on the same port, without its data."""
    async with Redis.from_url(redis_url) as redis:
        assert await redis.dbsize() == 0
        await redis.set("lost", "1")
    redis_server.stop()
    assert not redis_server.is_running
    redis_server.start()
    assert redis_server.url == redis_url
    async with Redis.from_url(redis_url) as redis:
        assert await redis.get("lost") is None


async def test_postgres_is_empty_and_real(postgres_url: str) -> None:
    """The PostgreSQL server keeps what is committed, and nothing else."""
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        await connection.execute("CREATE TABLE kept (n int)")
        await connection.commit()
        await connection.execute("INSERT INTO kept VALUES (1)")
        await connection.rollback()
        rows = await connection.execute("SELECT count(*) FROM kept")
        assert await rows.fetchone() == (0,)


async def test_postgres_restarts_with_its_data(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    """A PostgreSQL server that was stopped starts again where it was, with its data."""
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    postgres_server.stop()
    assert not postgres_server.is_running
    postgres_server.start()
    assert postgres_server.url == postgres_url
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        rows = await connection.execute("SELECT n FROM kept")
        assert await rows.fetchone() == (1,)
