"""Events that one process received wake the waiting calls of every other, through Redis."""

import asyncio
import json
import logging
import random
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio import RedisCluster
from redis.asyncio.client import PubSub

from gather_async.clock import Clock, SystemClock
from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.loops import LoopOwner
from gather_async.observability import log_fields
from gather_async.protocol.retry import backoff
from gather_async.redis.connection import (
    RedisClient,
    RedisConnection,
    RedisError,
    decoded,
    failure_word,
)
from gather_async.validators import Number, Secret, hide_arguments
from gather_async.waiting import Listener, Signals
from gather_async.webhooks.events import EVENT_CLASSES
from gather_async.webhooks.ingest import Listeners

__all__ = ["RedisSignals"]

_log = logging.getLogger("gather_async.redis")

_CALL: Final = 2.0  # seconds for one call; a server in the same network answers in milliseconds
# Beats after which a silent receiver counts as gone: one may be late, or lost with a connection.
_LIFETIME: Final = 2.5
# Events that wait to be published; more come only while the server is away. Each lost costs a poll.
_MOST_WAITING: Final = 1000
_AT_ONCE: Final = 100  # events of one message: some 20 KB
# Seconds in which a shared inbox publishes an event in other processes, too: 0.2 usually.
_DUPLICATE_WITHIN: Final = 5.0
_LONGEST_LIFETIME: Final = 3600.0  # seconds, whatever a message says
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to connect

_Event = tuple[str, frozenset[str]]


class RedisSignals:
    """Signals for ``GatherClient(signals=...)`` in processes that receive no webhooks themselves.

    Every process of one ``name`` is notified of every event within milliseconds, by its name and
    the ids in it; nothing else of it is sent. Those that receive webhooks pass their receivers,
    and publish what comes in::

        async with RedisSignals(url, receivers=[hooks]) as signals, hooks:
            ...

    Those that wait pass none, and make their client with ``signals=signals``. Publish/subscribe
    keeps nothing: an event that is missed costs its waiting call some slow polls, never the
    result. `alive` is true only while receivers live: they send beats. While the server is away
    waiting calls poll as without signals; when it is back, each polls once.

    It works in one event loop at a time; clients in other loops and threads may use it. Of a
    cluster, the URL of any one server will do.
    """

    @hide_arguments
    def __init__(
        self,
        redis: str | bytes | Secret | RedisClient,
        *,
        receivers: Iterable[Signals] = (),
        name: str = "webhooks",
        beat: float = 2.0,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Make signals; nothing is opened yet.

        Args:
            redis: The server's URL, or a client of `redis.asyncio`, which is never closed here.
            receivers: Where this process receives events: `WebhookReceiver`, for one.
            name: The same in all processes that belong together.
            beat: Seconds between two beats of a process that receives.
            clock: Where time comes from; None: the machine's clock.
            rng: Where the jitter of pauses comes from; None: a generator of its own.

        Raises:
            ConfigurationError: The URL can't be read, or another argument can't work.
        """
        if isinstance(redis, RedisCluster):
            raise ConfigurationError("Pass the URL of any one server of the cluster.")
        if not isinstance(name, str) or not name:
            raise ConfigurationError("name must be text that isn't empty.")
        self._beat: float = Number(above=0, unit="seconds").check("beat", beat)
        is_one = hasattr(receivers, "subscribe")
        given: tuple[Signals, ...] = () if is_one else tuple(receivers)
        if is_one or not all(hasattr(each, "subscribe") for each in given):
            raise ConfigurationError("receivers must hold receivers: receivers=[hooks].")
        self._redis, self._receivers = redis, given
        self._channel = f"gather:signals:{name}"
        self._place = RedisConnection(redis, timeout=_CALL).place
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._listeners = Listeners()
        self._owner = LoopOwner("RedisSignals", until_closed=True)
        self._main: asyncio.Task[None] | None = None
        self._ends: list[Callable[[], None]] = []
        self._reset()

    def _reset(self) -> None:
        """Begin without a past."""
        self._id = secrets.token_hex(8)
        self._waiting: deque[_Event] = deque(maxlen=_MOST_WAITING)
        self._wake, self._first_try = asyncio.Event(), asyncio.Event()
        self._living: dict[str, float] = {}
        self._received: OrderedDict[_Event, list[float]] = OrderedDict()
        self._is_subscribed = self._is_publisher = self._is_beating = False
        self._was_subscribed = False
        self._failures = 0

    @property
    def alive(self) -> bool:
        """Whether events arrive at present: it is subscribed, and a receiver lives somewhere."""
        if not self._is_subscribed:
            return False
        now = self._clock.monotonic()
        return any(until > now for until in tuple(self._living.values()))

    def subscribe(self, listener: Listener, /) -> Callable[[], None]:
        """Call a listener for each event of any process; return what ends that.

        It is called in the loop of the signals or of a receiver, and must neither block nor raise.
        """
        return self._listeners.subscribe(listener)

    def publish(self, event: str, ids: Iterable[str]) -> None:
        """Wake what waits for an event, in all processes; from any thread.

        Only for processes without a `WebhookReceiver`: with the first event this one counts as
        one that receives, until it is closed. Ignored unless the signals are started.

        Args:
            event: The event's name, such as ``question.audio_generated``.
            ids: All ids in its data.
        """
        self._is_publisher = True
        self._on_event(event, frozenset(ids))

    async def start(self) -> None:
        """Connect, and stay connected from now on; `aclose` ends it.

        It returns once events arrive. A server that is away is logged, not raised: it is tried
        again until it is there.

        Raises:
            ClientClosedError: It is running already, or in another event loop, or the lent client
                is in use in another.
        """
        self._owner.check()
        if self._owner.is_here:
            raise ClientClosedError("These signals are running already: start them once.")
        self._owner.enter()
        self._reset()
        self._ends = [each.subscribe(self._on_event) for each in self._receivers]
        self._main = asyncio.create_task(self._work(), name="RedisSignals")
        try:
            await self._first_try.wait()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if self._main is not None and self._main.done():
            failed = self._main
            await self.aclose()
            failed.result()

    async def aclose(self) -> None:
        """End it; nothing runs afterwards. Harmless to repeat."""
        main, self._main = self._main, None
        if main is None:
            return
        for end in self._ends:
            end()
        try:
            main.cancel()
            await asyncio.wait({main})
        except asyncio.CancelledError:
            main.cancel()  # without waiting for the server
            await asyncio.wait({main})
            raise
        finally:
            self._owner.leave()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "alive" if self.alive else "not alive"
        return f"<RedisSignals {self._channel} on {self._place}, {state}>"

    # What comes in here

    def _on_event(self, event: str, ids: frozenset[str]) -> None:
        """Pass on what this process received, from the thread of its receiver."""
        if self._main is not None:
            self._owner.call(self._pass_on, (event, ids))

    def _pass_on(self, event: _Event) -> None:
        if self._main is None or self._is_duplicate(event):
            return
        self._listeners.notify(*event)
        self._waiting.append(event)
        self._wake.set()

    def _is_duplicate(self, event: _Event) -> bool:
        """Return whether a shared inbox repeats what another process has published here.

        They are counted: of two equal events, each is published once.
        """
        now, times = self._clock.monotonic(), self._received.get(event, [])
        while times:
            if times.pop(0) > now - _DUPLICATE_WITHIN:
                return True
        return False

    # The connection

    async def _work(self) -> None:
        """Stay subscribed; publish at the end that this receiver is leaving."""
        while True:
            # Anew each time: others of a pool are dead, too, if one is.
            connection = RedisConnection(self._redis, timeout=_CALL)
            try:
                await self._stay_subscribed(connection)
            except asyncio.CancelledError:
                if self._is_beating:
                    with suppress(RedisError):
                        await self._send(connection, is_leaving=True)
                raise
            except Exception as error:
                if not self._first_try.is_set():
                    raise  # out of `start`
                extra = log_fields(place=self._place, error=error)
                _log.exception("The signals failed; they connect again", extra=extra)
            finally:
                self._first_try.set()
                await connection.aclose()
            self._failures += 1
            draw = 0.5 + self._rng.random() / 2
            pause = backoff(self._failures, base=_FIRST_PAUSE, cap=_LONGEST_PAUSE, draw=draw)
            await self._clock.sleep(pause)

    async def _stay_subscribed(self, connection: RedisConnection) -> None:
        """Read and publish until the connection is lost."""
        pubsub: PubSub = (await connection.client()).pubsub()
        try:
            async with asyncio.timeout(_CALL):
                await pubsub.subscribe(self._channel)
                await pubsub.get_message(timeout=None)
            self._on_subscribed()
            await _run_until_one_fails(
                self._read(pubsub),
                self._keep_beating(connection, pubsub),
                self._publish(connection),
            )
        except (RedisError, OSError) as error:
            self._on_lost(error)
        finally:
            self._is_subscribed = False
            with suppress(RedisError, OSError):
                async with asyncio.timeout(_CALL):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # of redis-py

    def _on_subscribed(self) -> None:
        """Record that events arrive from now on; earlier ones are lost."""
        if self._failures:
            extra = log_fields(place=self._place)
            _log.info("The signals' %s is there again", self._place, extra=extra)
        self._is_subscribed, self._failures = True, 0
        if self._was_subscribed:
            # Events may have been missed: one that names nothing makes each wait poll once.
            for event in EVENT_CLASSES:
                self._listeners.notify(event, frozenset())
        self._was_subscribed = True
        self._first_try.set()

    def _on_lost(self, error: BaseException) -> None:
        self._living = {}
        if not self._failures:
            _log.warning(
                "The signals' %s is away (%s): waiting calls poll until it is there again",
                self._place,
                failure_word(error),
                extra=log_fields(place=self._place, error=error),
            )

    async def _read(self, pubsub: PubSub) -> None:
        while True:
            # A half-open connection is silent; else the response to a ping comes in each beat.
            async with asyncio.timeout(_LIFETIME * self._beat + _CALL):
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
            if message is not None and message["type"] == "message":
                self._on_message(decoded(message["data"]))

    def _on_message(self, text: str) -> None:
        """Record a message of any process, this one included."""
        try:
            message = json.loads(text)
            sender = str(message["from"])
            seconds = min(float(message["for"]), _LONGEST_LIFETIME)
            events = [(str(name), frozenset(map(str, ids))) for name, ids in message["events"]]
        except (ValueError, TypeError, KeyError):
            extra = log_fields(place=self._place)
            _log.debug("A message on %s is not of these signals", self._channel, extra=extra)
            return
        now = self._clock.monotonic()
        # Replaced, never changed: `alive` is asked for in any thread.
        self._living = {
            each: until
            for each, until in (self._living | {sender: now + seconds}).items()
            if until > now
        }
        for event in events if sender != self._id else ():
            if self._receivers:
                self._received.setdefault(event, []).append(now)
                self._received.move_to_end(event)
                if len(self._received) > _MOST_WAITING:
                    self._received.popitem(last=False)
            self._listeners.notify(*event)

    async def _keep_beating(self, connection: RedisConnection, pubsub: PubSub) -> None:
        while True:
            is_receiving = self._is_publisher or any(each.alive for each in self._receivers)
            if is_receiving or self._is_beating:
                await self._send(connection, is_leaving=not is_receiving)
            async with asyncio.timeout(_CALL):
                await pubsub.ping()
            await self._clock.sleep(self._beat)

    async def _publish(self, connection: RedisConnection) -> None:
        while True:
            while events := list(islice(self._waiting, _AT_ONCE)):
                await self._send(connection, events)
                # What fails goes again with the next connection. Meanwhile the oldest may be gone.
                for event in events:
                    if self._waiting and self._waiting[0] is event:
                        self._waiting.popleft()
            self._wake.clear()
            await self._wake.wait()

    async def _send(
        self,
        connection: RedisConnection,
        events: Iterable[_Event] = (),
        *,
        is_leaving: bool = False,
    ) -> None:
        self._is_beating = not is_leaving
        message: Mapping[str, Any] = {
            "from": self._id,
            "for": 0.0 if is_leaving else _LIFETIME * self._beat,
            "events": [[name, sorted(ids)] for name, ids in events],
        }
        text = json.dumps(message)
        await connection.call(lambda client: client.publish(self._channel, text))


async def _run_until_one_fails(*parts: Coroutine[Any, Any, None]) -> None:
    """Run what never ends by itself; once one fails, end all, and raise its error.

    The task groups of Python 3.11 lose a cancellation that comes at that moment.
    """
    tasks = [asyncio.create_task(each) for each in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
