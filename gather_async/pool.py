"""`GatherPool`: clients of many API keys, which share one HTTP session."""

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from inspect import iscoroutinefunction
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack
from weakref import WeakValueDictionary

from gather_async.client import GatherClient
from gather_async.clock import Clock
from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.observability import CallEvents, OnEvent
from gather_async.phone import PhonePolicy
from gather_async.protocol.retry import RetryPolicy
from gather_async.protocol.rolling_windows import DEFAULT_RATE_LIMITS, RateLimit
from gather_async.quota.limiter import Limiter
from gather_async.quota.queued_limiter import Pace
from gather_async.settings import validate_key
from gather_async.transport import HTTPSession, HTTPTrace, Timeout, Transport
from gather_async.validators import Secret, hide_arguments
from gather_async.waiting import Signals

__all__ = ["ClientOptions", "GatherPool"]


class ClientOptions(TypedDict, total=False):
    """The options of a `GatherClient` that all clients of a pool have in common."""

    base_url: str | None
    session: HTTPSession | None
    timeout: Timeout
    retry: RetryPolicy
    rate_limits: Sequence[RateLimit]
    phone_policy: PhonePolicy
    default_region: str | None
    user_id: str | None
    signals: Signals | None
    max_wait: float | None
    reserve: int
    pace: Pace
    trust_env: bool
    allow_insecure: bool
    max_response: int
    trace_configs: Sequence[HTTPTrace]
    on_event: OnEvent | None
    clock: Clock | None
    rng: random.Random | None


class _PooledClient(GatherClient):
    """A client whose HTTP session is its pool's, and which the pool closes."""

    def __init__(
        self, api_key: str, transport: Transport, limiter: Limiter | None, options: ClientOptions
    ) -> None:
        self._transport = transport
        super().__init__(api_key, limiter=limiter, **options)

    def _make_transport(self, **_: Any) -> Transport:
        return self._transport

    async def aclose(self) -> None:
        """Do nothing: others may use the key's client; the pool closes it."""

    async def close_for_good(self) -> None:
        """End the calls that wait."""
        await self._waits.close()
        self._session.cancel_scope.close()


class GatherPool:
    """Clients for many API keys, one for each, through one HTTP session.

    The clients of one key share its quota and its waits; of different keys, nothing but
    the connections, 100 at most. A client that was not used for its key's longest window
    is forgotten, as nothing counts against its quota any more. Use the pool as an async
    context manager, or call `aclose` at the end. It may be used in several threads.
    """

    @hide_arguments
    def __init__(
        self,
        limiter: Callable[[str], Limiter] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Make a pool. Nothing is sent or opened yet.

        Args:
            limiter: Makes the limiter of a key, such as
                ``lambda key: RedisLimiter(url, key=key)``; the pool closes those that have
                an ``aclose``. None: a limiter in this process.
            options: Those of each `GatherClient`.

        Raises:
            ConfigurationError: An option can't work.
        """
        if limiter is not None and (not callable(limiter) or iscoroutinefunction(limiter)):
            raise ConfigurationError(
                "limiter must be a function of the API key, not async: a limiter counts the quota "
                "of one key."
            )
        if "api_key" in options:
            raise ConfigurationError("A pool has no api_key of its own: each goes to for_key().")
        # The one that opens the HTTP session; it also checks the options, before any key comes.
        self._owner = GatherClient("-", **options)
        self.call_events: CallEvents = self._owner.call_events
        options["on_event"] = self.call_events
        self._make_limiter = limiter
        self._options = options
        self._clock = self._owner.clock
        limits = options.get("rate_limits", DEFAULT_RATE_LIMITS)
        self._longest_window = max(each.per for each in limits)
        self._lock = threading.Lock()
        self._is_closed = False
        self._recent: OrderedDict[str, tuple[_PooledClient, float]] = OrderedDict()
        # What is forgotten may be in use all the same, and a second limiter would double the quota.
        self._clients: WeakValueDictionary[str, _PooledClient] = WeakValueDictionary()
        self._limiters: WeakValueDictionary[str, Limiter] = WeakValueDictionary()

    @hide_arguments
    def for_key(self, api_key: str | bytes | Secret) -> GatherClient:
        """Return the client of a key: the same one for as long as it is in use.

        Closing it does nothing; the pool closes all.

        Raises:
            ConfigurationError: It is no key; a missing one is not taken from the environment.
            ClientClosedError: The pool is closed.
        """
        if api_key is None:
            raise ConfigurationError("api_key is None: a pool takes no key from the environment.")
        key = validate_key(api_key)
        with self._lock:
            if self._is_closed:
                raise ClientClosedError("This pool is closed: make a new GatherPool.")
            client = self._clients.get(key) or self._make(key)
            self._recent[key] = client, self._clock.monotonic()
            self._recent.move_to_end(key)
            self._forget_unused()
        return client

    @property
    def base_url(self) -> str:
        """The server's address, without a slash at the end."""
        return self._owner.base_url

    @property
    def clients(self) -> Sequence[GatherClient]:
        """The clients of all keys that are not forgotten."""
        return tuple(self._clients.values())

    def _make(self, key: str) -> _PooledClient:
        limiter = self._limiters.get(key)
        if limiter is None and self._make_limiter is not None:
            limiter = self._make_limiter(key)
        transport = self._owner._session.transport  # noqa: SLF001 - one package
        client = _PooledClient(key, transport, limiter, self._options)
        self._clients[key], self._limiters[key] = client, client.limiter
        return client

    def _forget_unused(self) -> None:
        """Forget the clients that were asked for longest ago, if nothing counts against them."""
        now = self._clock.monotonic()
        for key, (client, asked) in list(islice(self._recent.items(), 2)):
            if now - asked <= self._longest_window:
                return
            status = client.limiter.status()
            is_idle = not any(each.used for each in status.windows) and not status.in_flight
            if is_idle and not hasattr(client.limiter, "aclose"):
                del self._recent[key]
            else:
                self._recent[key] = client, now
                self._recent.move_to_end(key)

    async def aclose(self) -> None:
        """Close the pool and all its clients, as `GatherClient.aclose` does; harmless to repeat."""
        with self._lock:
            self._is_closed = True
            clients = list(self._clients.values())
            self._recent.clear()
        async with AsyncExitStack() as closing:
            if self._make_limiter is not None:
                for limiter in {id(each.limiter): each.limiter for each in clients}.values():
                    close = getattr(limiter, "aclose", None)
                    if close is not None:
                        closing.push_async_callback(close)
            closing.push_async_callback(self._owner.aclose)
            for client in clients:
                closing.push_async_callback(client.close_for_good)

    async def __aenter__(self) -> Self:
        if self._is_closed:
            raise ClientClosedError("This pool is closed: make a new GatherPool.")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open"
        return f"<GatherPool {self._owner.base_url} {state}, {len(self._recent)} keys>"
