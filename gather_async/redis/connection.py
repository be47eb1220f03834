"""The connection to a Redis server: a deadline for each call, a client for each event loop."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from attrs import Factory, define, field, frozen
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.loops import LoopOwner, PerLoop, close_surely, end_lifetime
from gather_async.validators import Number, Secret, revealed

__all__ = [
    "Argument",
    "RedisClient",
    "RedisConnection",
    "RedisError",
    "Script",
    "decoded",
    "failure_word",
]

T = TypeVar("T")
# Calls at once of a loop. More are no faster, and a pool that is used up refuses.
_CONCURRENCY = 16
Argument: TypeAlias = str | bytes | int | float
RedisClient: TypeAlias = Redis | RedisCluster
"""A client of redis-py, such as Sentinel's ``master_for`` returns."""


def decoded(reply: str | bytes) -> str:
    """Return a reply as text: a lent client may have ``decode_responses``, or not."""
    return reply if isinstance(reply, str) else reply.decode()


def failure_word(error: BaseException | None) -> str:
    """Return the word for a failure: the server's own, such as NOAUTH, or the error's class."""
    word = str(error).partition(" ")[0]
    is_code = type(error) is ResponseError and word.isalpha() and word.isupper() and word != "ERR"
    return word if is_code else type(error).__name__


def _digest_of(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@frozen
class Script:
    """A Lua script, sent whole only to a server that doesn't have it yet."""

    text: str = field(repr=False)
    digest: str = field(
        init=False, default=Factory(lambda script: _digest_of(script.text), takes_self=True)
    )

    async def run(
        self, client: RedisClient, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        """Run the script, and return its reply.

        Args:
            client: Where to.
            keys: All of one hash tag, so that a cluster has them on one server.
            arguments: What ``ARGV`` holds.

        Raises:
            RedisError: The server can't be reached, or refuses.
        """
        # redis-py's own register_script takes three calls where the script is missing.
        given: tuple[Any, ...] = (len(keys), *keys, *arguments)
        try:
            return await client.evalsha(self.digest, *given)
        except NoScriptError:
            return await client.eval(self.text, *given)


@define(eq=False)
class _LoopClient:
    """The client of one event loop."""

    owner: LoopOwner
    turns: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(_CONCURRENCY))
    client: RedisClient | None = None
    lifetime: AsyncGenerator[None, None] | None = None
    calling: set[asyncio.Task[Any]] = field(factory=set)
    """Tasks whose call is in flight."""
    is_over: bool = False
    """Whether the loop is about to end."""

    async def close(self) -> None:
        """Close the client in its own loop, unless it was lent."""
        lifetime, self.client, self.lifetime = self.lifetime, None, None
        await end_lifetime(lifetime)


class RedisConnection:
    """Calls of one Redis server, from any event loop, in any thread.

    Each loop has a client of its own, which closes with the loop or by `aclose`; a forked
    child opens new ones. A client that was lent is used as it is, in one loop, and never closed.

    A call ends when its time is over, whatever the server does. redis-py's own
    ``socket_timeout`` is turned off for that: on Python 3.11 it swallows cancellations. So is
    its repeating of calls: one that isn't safe to repeat would be carried out twice.

    Args:
        redis: A URL (``redis://``, ``rediss://`` with TLS, ``unix://``), as text or as what hides
            it, such as pydantic's ``SecretStr``; or a client of `redis.asyncio`, such as one
            of a cluster or of Sentinel.
        timeout: Seconds for a call.

    Raises:
        ConfigurationError: The URL can't be read, or the client is none of `redis.asyncio`.
    """

    def __init__(self, redis: str | bytes | Secret | RedisClient, *, timeout: float) -> None:
        self._timeout = Number(above=0, unit="seconds").check("timeout", timeout)
        self._lent: RedisClient | None = None
        self._url = ""
        if isinstance(redis, Redis | RedisCluster):
            self._lent = redis
            self.place: str = "the lent client's server"
        else:
            self._url = _validate_url(redis)
            self.place = _place(_new_client(self._url))
        self._lent_to = LoopOwner("lent Redis client")
        self._clients: PerLoop[_LoopClient] = PerLoop(self._make_part)
        self._is_closed = False

    def _make_part(self) -> _LoopClient:
        return _LoopClient(LoopOwner("connection") if self._lent is None else self._lent_to)

    @property
    def is_closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._is_closed

    @property
    def is_ending(self) -> bool:
        """Whether the running loop is about to end: no call can be made in it any more."""
        return self._clients.here().is_over and self._clients.here().owner.is_here

    async def client(self) -> RedisClient:
        """Return the running loop's client, for what `call` can't do, such as subscribing.

        Raises:
            ClientClosedError: The connection is closed, or its lent client busy in another loop.
        """
        part = self._clients.here()
        if part.client is not None and not self._is_closed and part.owner.is_here:
            return part.client
        return await self._open(part)

    async def call(
        self, command: Callable[[RedisClient], Awaitable[T]], *, timeout: float | None = None
    ) -> T:
        """Return the reply to what ``command`` asks of the client.

        Args:
            command: Such as ``lambda client: client.get(key)``.
            timeout: Seconds; None: the connection's.

        Raises:
            RedisError: The server refuses, can't be reached, or takes too long.
            ClientClosedError: As `client` raises it.
        """
        client = await self.client()
        part, task = self._clients.here(), asyncio.current_task()
        turns = part.turns
        assert task is not None  # noqa: S101 - a coroutine of asyncio runs in a task
        part.calling.add(task)
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout), turns:
                return await command(client)
        except RedisConnectionError:
            # Others that are idle are as dead: older releases of redis-py would use them.
            if self._lent is None and isinstance(client, Redis):
                await client.connection_pool.disconnect(inuse_connections=False)
            raise
        except RedisError:
            raise
        except TimeoutError as error:
            raise RedisTimeoutError(f"{self.place} took too long to answer.") from error
        except OSError as error:
            raise RedisConnectionError(f"{self.place} can't be reached.") from error
        finally:
            part.calling.discard(task)

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()
    ) -> Any:
        """Return a script's reply.

        Raises:
            RedisError: As `call` raises it.
            ClientClosedError: As `client` raises it.
        """
        return await self.call(lambda client: script.run(client, keys, arguments))

    async def aclose(self) -> None:
        """Close what was opened here; harmless to repeat."""
        self._is_closed = True
        await self._clients.close(_LoopClient.close)

    async def _open(self, part: _LoopClient) -> RedisClient:
        """Return a new client of the running loop, or the lent one."""
        if self._is_closed:
            raise ClientClosedError("This connection to Redis is closed.")
        if part.owner.enter():
            part.is_over = False
        elif part.is_over:
            raise ClientClosedError("The event loop is about to end.")
        part.client = part.lifetime = None
        part.turns = asyncio.Semaphore(_CONCURRENCY)  # one of an earlier loop may have waiters
        if self._lent is not None:
            part.client = self._lent
            return self._lent
        lifetime = part.lifetime = self._keep_open(part)
        await anext(lifetime)
        if part.client is None:  # closed meanwhile
            raise ClientClosedError("This connection to Redis is closed.")
        return part.client

    async def _keep_open(self, part: _LoopClient) -> AsyncGenerator[None, None]:
        """Hold a client open until closed by `aclose` or by the end of its loop.

        ``asyncio.run`` closes the async generators of its loop before it ends.
        """
        client = part.client = _new_client(self._url)
        try:
            yield
        finally:
            if part.lifetime is not None:  # else `aclose` ends it
                part.is_over, part.client = True, None
                # What was begun after the loop's tasks were cancelled would never end.
                for task in part.calling:
                    task.cancel()
                if part.calling:
                    await asyncio.wait(set(part.calling))
            await close_surely(client.aclose)

    def __repr__(self) -> str:
        return f"<RedisConnection {self.place}{' closed' * self._is_closed}>"


def _new_client(url: str) -> Redis:
    # By protocol 3 redis-py 8 uses connections again that the server has closed.
    client = Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0))
    # Not by argument: a URL's own go ahead. Newer releases have defaults.
    none = {"socket_timeout": None, "socket_connect_timeout": None}
    client.connection_pool.connection_kwargs.update(none)
    return client


def _validate_url(url: object) -> str:
    """Return the URL, if redis-py can read it.

    Raises:
        ConfigurationError: It can't; the message doesn't repeat it, as it may hold a password.
    """
    text = revealed(url)
    if not isinstance(text, str):
        kind = type(url).__name__
        raise ConfigurationError(f"redis must be a URL or a client of redis.asyncio, not {kind}.")
    try:
        _new_client(text)
    except (ValueError, TypeError, RedisError):
        raise ConfigurationError(
            "The URL of the Redis server can't be read: write redis://host:6379/0, rediss:// for "
            "TLS, or unix:///path; percent-encode a password's special characters."
        ) from None
    return text


def _place(client: Redis) -> str:
    """Return where a client connects to, without user and password."""
    known = client.connection_pool.connection_kwargs
    if "path" in known:
        return f"Redis at {known['path']}"
    return f"Redis at {known.get('host', 'localhost')}:{known.get('port', 6379)}"
