"""A lease on a Redis server: one process at a time, on whichever machine, does a job."""

import asyncio
import logging
import math
import secrets
import threading
from contextlib import suppress
from types import TracebackType
from typing import ClassVar, Final, Self

from attrs import define, field

from gather_async.clock import Clock, SystemClock
from gather_async.errors import ConfigurationError, GatherConnectionError, LeaseHeldError
from gather_async.observability import log_fields
from gather_async.redis.connection import (
    RedisClient,
    RedisConnection,
    RedisError,
    Script,
    failure_word,
)
from gather_async.validators import Number, Secret, hide_arguments, revealed

__all__ = ["RedisLease"]

_log = logging.getLogger("gather_async.redis")

# Returns the milliseconds for which another holds the lease, -1 for ever; nothing if it is ours.
_ACQUIRE: Final = Script("""
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
return redis.call('PTTL', KEYS[1])
""")
_RENEW: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
_RELEASE: Final = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

_CALL: Final = 2.0  # seconds for one call; a server in the same network answers in milliseconds
# Given up that part of the time before the server may give it to another: two machines'
# seconds are not quite equal, and what the holder begins last takes a moment to leave.
_MARGIN: Final = 0.1
_RETRY: Final = 0.02  # of the time to live: the pause after a call that failed


@define(eq=False)
class _SharedConnection:
    """The connection of all leases of a process to one server: jobs come by the hundred."""

    connection: RedisConnection
    url: str = field(repr=False)  # with its password
    users: int = 0

    _BY_URL: ClassVar[dict[str, "_SharedConnection"]] = {}
    _LOCK: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def borrow(cls, redis: str | bytes | Secret | RedisClient) -> "_SharedConnection":
        """Return the connection to a server; each user gives it back."""
        url = revealed(redis)
        if not isinstance(url, str):
            return cls(RedisConnection(redis, timeout=_CALL), "", 1)
        with cls._LOCK:
            if url not in cls._BY_URL:
                cls._BY_URL[url] = cls(RedisConnection(url, timeout=_CALL), url)
            shared = cls._BY_URL[url]
            shared.users += 1
            return shared

    async def give_back(self) -> None:
        """Close the connection, if no one uses it any more."""
        with self._LOCK:
            self.users -= 1
            is_last = not self.users
            if is_last:
                self._BY_URL.pop(self.url, None)
        if is_last:
            await self.connection.aclose()


class RedisLease:
    """The sole permission for something with a name, held by one process at a time.

    For ``gather.bulk_invite(lease=RedisLease(url, "spring campaign"))``, or by itself::

        async with RedisLease(url, "nightly report") as lease:
            ...  # stop once lease.lost is set

    It is renewed in the background. Its event `lost` is set when another process may get it:
    it was taken away or forgotten by the server, or could not be renewed in time, which the
    holder's own clock decides before the server's does. Used again after its end, it is
    acquired anew. A second holder is refused at once, in the same process, too.
    """

    @hide_arguments
    def __init__(
        self,
        redis: str | bytes | Secret | RedisClient,
        name: str,
        *,
        ttl: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        """Describe the lease; nothing is opened yet.

        Args:
            redis: The server's URL, or a client of `redis.asyncio`, which is never closed here.
            name: What is leased: the same on all machines. It is a part of the key.
            ttl: Seconds, 1 to 3600, after which another may have it once the holder has died or
                lost the server.
            clock: Where time comes from; None: the machine's clock.

        Raises:
            ConfigurationError: The URL can't be read, or another argument can't work.
        """
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError("name must be text that isn't empty, such as the job's name.")
        self._ttl: float = Number(least=1, most=3600, unit="seconds").check("ttl", ttl)
        self._redis = redis
        self._place = RedisConnection(redis, timeout=_CALL).place
        self._name, self._key = name, f"gather:lease:{name}"
        self._clock = clock or SystemClock()
        self._lost = asyncio.Event()
        self._shared: _SharedConnection | None = None
        self._token = ""
        self._until = -math.inf
        self._renewing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What is leased."""
        return self._name

    @property
    def lost(self) -> asyncio.Event:
        """Set once another may hold the lease; a new event each time that it is acquired."""
        return self._lost

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lease, by its own clock."""
        return not self._lost.is_set() and self._clock.monotonic() < self._until

    async def __aenter__(self) -> Self:
        """Acquire the lease, or raise at once.

        Raises:
            LeaseHeldError: Another process has it, or this one by another way.
            GatherConnectionError: The server can't be asked; nothing is held.
        """
        if self._renewing is not None:
            raise LeaseHeldError(f"{self!r} is in use already: wait for its end.", wait=self._ttl)
        shared = _SharedConnection.borrow(self._redis)
        token, began = secrets.token_hex(16), self._clock.monotonic()
        try:
            left = await shared.connection.run(_ACQUIRE, [self._key], [token, self._milliseconds])
        except BaseException as error:
            # A call that was cut off may have been carried out all the same.
            await self._release(shared, token)
            if isinstance(error, RedisError):
                raise self._unreachable(error) from error
            raise
        if left is not None:
            await shared.give_back()
            wait = self._ttl if left < 0 else left / 1000
            raise LeaseHeldError(
                f"Another process holds the lease {self._name!r}: try again when it has ended, "
                f"or in {wait:.0f} s if it has died.",
                wait=wait,
            )
        self._shared, self._token, self._lost = shared, token, asyncio.Event()
        self._extend(began)
        self._renewing = asyncio.create_task(
            self._keep(shared.connection, token), name=f"lease {self._name}"
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lease back, so that another may have it at once."""
        renewing, shared = self._renewing, self._shared
        if renewing is None or shared is None:
            return
        try:
            renewing.cancel()
            await asyncio.wait({renewing})
        finally:
            self._renewing, self._shared, self._until = None, None, -math.inf
            if self._lost.is_set():
                await shared.give_back()
            else:
                await self._release(shared, self._token)

    @property
    def _milliseconds(self) -> int:
        return round(self._ttl * 1000)

    def _extend(self, asked_at: float) -> None:
        # From before the call: the server counts from a later moment.
        self._until = asked_at + self._ttl * (1 - _MARGIN)

    async def _keep(self, connection: RedisConnection, token: str) -> None:
        """Renew the lease until it is lost."""
        pause = self._ttl / 3
        try:
            while (now := self._clock.monotonic()) < self._until:
                await self._clock.sleep(min(pause, self._until - now))
                pause = (
                    self._ttl / 3 if await self._renew(connection, token) else self._ttl * _RETRY
                )
        except asyncio.CancelledError:
            raise
        except Exception as error:
            extra = log_fields(lease=self._name, error=error)
            _log.exception("The lease %r can't be renewed", self._name, extra=extra)
        self._until = -math.inf
        self._lost.set()
        extra = log_fields(lease=self._name)
        _log.warning("The lease %r is lost: another process may have it", self._name, extra=extra)

    async def _renew(self, connection: RedisConnection, token: str) -> bool:
        """Renew the lease once; return whether the server answered."""
        now = self._clock.monotonic()
        arguments: list[str | int] = [token, self._milliseconds]
        try:
            is_ours = await connection.call(
                lambda client: _RENEW.run(client, [self._key], arguments),
                timeout=min(_CALL, max(self._until - now, 0.001)),
            )
        except RedisError:
            return False
        if is_ours:
            self._extend(now)
        else:
            self._until = -math.inf
        return True

    async def _release(self, shared: _SharedConnection, token: str) -> None:
        """Let another have the lease, whatever is cancelled meanwhile.

        It ends by itself if the server can't be reached within the time of a call.
        """
        ending = asyncio.create_task(self._give_back(shared, token), name=f"end of {self._name}")
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait({ending})
            raise

    async def _give_back(self, shared: _SharedConnection, token: str) -> None:
        try:
            with suppress(RedisError):
                await shared.connection.run(_RELEASE, [self._key], [token])
        finally:
            await shared.give_back()

    def _unreachable(self, error: RedisError) -> GatherConnectionError:
        return GatherConnectionError(
            f"The lease {self._name!r} can't be acquired: {self._place} failed "
            f"({failure_word(error)}). Start the server, or run without a lease.",
            maybe_processed=False,
            reason=failure_word(error),
            host=self._place,
        )

    def __repr__(self) -> str:
        return f"<RedisLease {self._name!r} {'held' if self.is_held else 'not held'}>"
