"""`WebhookReceiver`: the one object that users mount."""

import contextlib
import logging
import random
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gather_async.clock import Clock, LoopOwner, SystemClock
from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.protocol import signatures
from gather_async.validators import Number
from gather_async.webhooks.aiohttp_web import aiohttp_handler
from gather_async.webhooks.asgi import ASGIApp, WebhookApp
from gather_async.webhooks.catch_up import CatchUpClient, catch_up
from gather_async.webhooks.handlers import Handlers, Listener
from gather_async.webhooks.inbox import DeadLetter, Inbox
from gather_async.webhooks.ingest import Ingest
from gather_async.webhooks.memory_inbox import MemoryInbox
from gather_async.webhooks.reply import WebhookReply
from gather_async.webhooks.worker import HandlerPolicy, Worker

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["WebhookReceiver"]

_log = logging.getLogger("gather_async.webhooks")

_SHORTEST_TOKEN = 32


class WebhookReceiver(Handlers):
    """Receives deliveries, keeps the trusted ones, and runs handlers in the background.

    ``async with hooks`` starts the handlers and drains them at the end. Before
    that, deliveries are taken and stored, and wait; afterwards they are refused
    with 503, so that the sender tries again. It may be started again.
    """

    def __init__(
        self,
        secret: str | Sequence[str],
        *,
        tolerance: float = 300.0,
        inbox: Inbox | None = None,
        max_body: int = 1_048_576,
        handling: HandlerPolicy = HandlerPolicy(),  # noqa: B008 - frozen
        body_timeout: float = 10.0,
        unsigned_token: str | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Make a receiver. Nothing is opened yet.

        Args:
            secret: The webhook's secret; several, the newest first, while one replaces
                the other.
            tolerance: Seconds that a signature's timestamp may differ from now. The last
                attempt comes 6 minutes after the first; whether it carries a new
                timestamp is undocumented.
            inbox: Where events wait; None: a `MemoryInbox`, which a crash empties.
            max_body: Bytes of a body at most.
            handling: How handlers are run.
            body_timeout: Seconds in which a body must have come.
            unsigned_token: At least 32 characters that nobody can guess. A request whose
                path ends with them needs no signature: for the webhook of a single
                candidate interview, of which no secret is documented. Its events have
                ``signed=False``.
            clock: Where time comes from; None: the machine's clock.
            rng: Where the jitter of pauses comes from; None: a generator of its own.

        Raises:
            ConfigurationError: An argument can't work.
        """
        super().__init__()
        Number(least=1, whole=True).check("max_body", max_body)
        Number(above=0, unit="seconds").check("body_timeout", body_timeout)
        self._clock = clock or SystemClock()
        self._inbox: Inbox = MemoryInbox() if inbox is None else inbox
        self._body_timeout = body_timeout
        rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._worker = Worker(self._inbox, self.handlers, handling, self._clock, rng)
        self._intake = Ingest(
            secrets=signatures.validate_secrets(secret),
            unsigned_token=_checked_token(unsigned_token),
            tolerance=signatures.validate_tolerance(tolerance),
            max_body=max_body,
            inbox=self._inbox,
            handlers=self,
            clock=self._clock,
            on_new=self._worker.wake,
        )
        self._owner = LoopOwner("webhook receiver", until_closed=True)
        self._is_closed = False
        self._has_warned = False

    async def receive(
        self,
        body: bytes,
        headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
        *,
        path: str | None = None,
    ) -> WebhookReply:
        """Take one delivery, and return what to answer: at once, however long handlers take.

        The event is stored before this returns 200. Cancelling it leaves open whether
        it is; the sender's next attempt is recognised.

        Args:
            body: The body's bytes, before any parsing.
            headers: The request's headers, in any case; text or bytes.
            path: The request's path; only needed with ``unsigned_token``.

        Raises:
            ClientClosedError: The receiver runs in another event loop.
        """
        self._check_loop()
        if self._is_closed:
            return WebhookReply.unavailable("shutting_down")
        if self._owner.loop is None and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "Webhooks are stored, but no handler runs: use 'async with hooks', or the "
                "framework's lifespan."
            )
        return await self._intake.take(body, headers, path)

    def asgi(self, *, path: str | None = None, otherwise: ASGIApp | None = None) -> ASGIApp:
        """Return an ASGI application, to be mounted or to be the server's own.

        As the server's own it starts and drains this receiver with the server, unless it
        runs already; mounted in another application it does not: give that one `lifespan`.
        Under Starlette's ``mount`` the URL that is set up must end with a slash.

        Args:
            path: With ``otherwise``: where deliveries come in.
            otherwise: The application for all other paths, such as Django's, which has
                no lifespan of its own; it is sent no lifespan events.

        Raises:
            ConfigurationError: Only one of the two is given.
        """
        if (path is None) != (otherwise is None):
            raise ConfigurationError("asgi() takes path and otherwise together.")
        return WebhookApp(self, self._intake.max_body, self._body_timeout, path, otherwise)

    def aiohttp_handler(self) -> "Callable[[web.Request], Awaitable[web.StreamResponse]]":
        """Return a handler for ``web.Application().router.add_post``; see `cleanup_ctx`."""
        return aiohttp_handler(
            self, max_body=self._intake.max_body, body_timeout=self._body_timeout
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start, and drain at the end: for ``FastAPI(lifespan=hooks.lifespan)`` and its like.

        Where it runs already, whoever started it is left to end it.

        Raises:
            ClientClosedError: It runs in another event loop.
        """
        self._check_loop()
        if self._owner.loop is not None:
            yield
            return
        async with self:
            yield

    async def cleanup_ctx(self, app: "web.Application") -> AsyncIterator[None]:
        """Do what `lifespan` does, for ``app.cleanup_ctx.append(hooks.cleanup_ctx)``."""
        async with self.lifespan():
            yield

    async def start(self) -> None:
        """Run handlers from now on, in this loop; `aclose` ends it.

        Raises:
            ClientClosedError: It is running already.
        """
        self._check_loop()
        if self._owner.loop is not None:
            raise ClientClosedError("This receiver is running already: start it once.")
        self._owner.enter()
        self._is_closed = False
        self._worker.start()

    async def aclose(self) -> None:
        """Refuse further deliveries, finish what is due, and close the inbox.

        Takes ``handling.drain`` seconds at most; handlers that still run are cancelled
        then, and their events stay in an inbox that is kept on disk. Cancelling it
        cancels the handlers at once. Harmless to repeat.
        """
        self._check_loop()
        self._is_closed = True
        try:
            await self._worker.drain()
        finally:
            self._owner.leave()
            if not self._inbox.is_shared and (lost := sum((await self._inbox.waiting()).values())):
                _log.error("%d webhook tasks were not finished, and are lost with memory", lost)
            await self._inbox.aclose()

    async def catch_up(self, gather: CatchUpClient, *, since: datetime) -> int:
        """Deliver what the inbox has not seen of candidate interviews changed since then.

        The sender gives up after three attempts, so call this after an outage. Events
        made here have ``synthetic=True``; a late real one is recognised as the same.
        Costs one request for each 100 candidate interviews, and one for each unseen
        one of which the list doesn't say when it changed.

        Args:
            gather: A client; its bulk priority suits.
            since: Aware; what changed before it is left alone.

        Returns:
            How many events were delivered to the inbox.

        Raises:
            ConfigurationError: ``since`` has no zone.
            ClientClosedError: The inbox is full, and no handler is running.
            GatherError: A request failed; what was delivered until then stays.
            Exception: The inbox failed; what was delivered until then stays.
        """
        return await catch_up(
            gather, since=since, intake=self._intake, clock=self._clock, can_wait=lambda: self.alive
        )

    async def dead_letters(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """Return events that a handler failed on for good, oldest first, at most ``limit``."""
        return await self._inbox.dead_letters(limit=limit)

    async def replay(self, letters: Collection[DeadLetter] | None = None) -> int:
        """Give dead letters to their handlers again; None: all. Returns how many."""
        count = await self._inbox.replay(letters)
        self._worker.wake()
        return count

    async def discard(self, letters: Collection[DeadLetter] | None = None) -> int:
        """Forget dead letters; None: all. Returns how many."""
        return await self._inbox.discard(letters)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call a listener at once for each new event: its name, and the ids in its data.

        `GatherClient(signals=hooks)` uses it; any number of clients may.

        Returns:
            A function that ends the subscription.
        """
        return self._intake.listeners.subscribe(listener)

    @property
    def inbox(self) -> Inbox:
        """Where events wait."""
        return self._inbox

    @property
    def alive(self) -> bool:
        """Whether it is started and not closed, so that signals can be expected."""
        return self._owner.loop is not None and not self._is_closed

    @property
    def last_event_at(self) -> datetime | None:
        """When the last trusted delivery came, aware UTC; None if none has."""
        return self._intake.last_event_at

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
        state = "closed" if self._is_closed else "running" if self.alive else "not started"
        return f"<WebhookReceiver {state}, {len(self.handlers)} handlers, {self._inbox!r}>"

    def _check_loop(self) -> None:
        """Raise in a second loop; forget a first one that died without closing us."""
        self._owner.check()
        if self._owner.loop is not None and not self._owner.is_here:
            self._owner.leave()
            self._worker.forget()


def _checked_token(token: str | None) -> str | None:
    if token is not None and (len(token) < _SHORTEST_TOKEN or "/" in token):
        raise ConfigurationError(
            f"unsigned_token must have {_SHORTEST_TOKEN} characters at least and no slash: "
            "take secrets.token_urlsafe(32)."
        )
    return token
