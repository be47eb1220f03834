"""`WebhookReceiver`: the one object that users mount."""

import contextlib
import logging
import random
import time
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
from typing import TYPE_CHECKING, Any, Self, TypeVar

from gather_async.clock import Clock, SystemClock
from gather_async.errors import ConfigurationError
from gather_async.observability import EventListeners, start_log
from gather_async.protocol import signatures
from gather_async.validators import Number, hide_arguments
from gather_async.webhooks import adapters, signing
from gather_async.webhooks.catch_up import CatchUpClient, catch_up
from gather_async.webhooks.dead_letters import DeadLetters, OnDeadLetter
from gather_async.webhooks.handlers import Handlers
from gather_async.webhooks.inbox import DeadLetter, Inbox, validate_inbox
from gather_async.webhooks.ingest import Ingest, Listener, WebhookReply
from gather_async.webhooks.lifecycle import Lifecycle, ReceiverState
from gather_async.webhooks.memory_inbox import MemoryInbox
from gather_async.webhooks.runs import CURRENT_RUN, HandlerEnded, HandlerPolicy
from gather_async.webhooks.signing import Finish
from gather_async.webhooks.worker import Worker

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["WebhookReceiver"]

_log = logging.getLogger("gather_async.webhooks")
F = TypeVar("F", bound=OnDeadLetter)

Secret = Any
"""Text, bytes, or an object with ``get_secret_value()``."""


class WebhookReceiver(Handlers):
    """Receives deliveries, keeps the trusted ones, and runs handlers in the background.

    ``async with hooks`` starts the handlers and drains them at the end. Before
    that, deliveries are stored and wait; afterwards they get a 503. It may start again.
    """

    @hide_arguments
    def __init__(
        self,
        secret: Secret | Sequence[Secret] | None = None,
        *,
        secrets: signing.TenantSecrets | None = None,
        name: str | None = None,
        former_names: Collection[str] = (),
        tolerance: float = 300.0,
        inbox: Inbox | None = None,
        max_body: int = 1_048_576,
        handling: HandlerPolicy = HandlerPolicy(),  # noqa: B008 - frozen
        body_timeout: float = 10.0,
        unsigned_token: str | None = None,
        tenant_path: str = signing.TENANT_PATH,
        on_dead_letter: OnDeadLetter | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Make a receiver; nothing is opened yet.

        Args:
            secret: The webhook's secret; several, the newest first, while one replaces
                the other. Text, bytes, or pydantic's ``SecretStr``.
            secrets: Instead, the secrets of several tenants: a mapping, or a function of the
                tenant, async or not, that returns None for one that it doesn't know. The
                tenant comes from the path; with a mapping and none in the path all are tried.
            name: Under which its events are stored: receivers of one name share their
                events, in whatever process, and those of other names in one inbox
                never see them. None: made of the secret, or of ``tenant_path``.
            former_names: Names that it had before, as after ``name`` was added or ``secrets``
                took the place of the one secret, whose name is ``WebhookReceiver(secret).name``.
                What waits under them, and their dead letters, are its own, so no other receiver
                may have them.
            tolerance: Seconds that a signature's timestamp may differ from now. The last
                attempt comes 6 minutes after the first; whether it carries a new
                timestamp is undocumented.
            inbox: Where events wait; None: a `MemoryInbox`, which a crash empties.
            max_body: Bytes of a body at most.
            handling: How handlers are run.
            body_timeout: Seconds in which a body must have come.
            unsigned_token: At least 32 characters that can't be guessed. A request whose
                path ends with them needs no signature: for the webhook of a single
                candidate interview, of which no secret is documented. Its events have
                ``signed=False``.
            tenant_path: The path behind which the tenant stands.
            on_dead_letter: Called, or awaited, with each `DeadLetter` once it is stored.
            clock: Where time comes from; None: the machine's clock.
            rng: Where the jitter of pauses comes from; None: a generator of its own.

        Raises:
            ConfigurationError: An argument can't work.
        """
        super().__init__()
        start_log()
        Number(least=1, whole=True).check("max_body", max_body)
        Number(above=0, unit="seconds").check("body_timeout", body_timeout)
        self._clock = clock or SystemClock()
        self._inbox: Inbox = MemoryInbox(clock=self._clock) if inbox is None else inbox
        validate_inbox(self._inbox)
        if not isinstance(handling, HandlerPolicy):
            raise ConfigurationError("handling must be a HandlerPolicy.")
        self._body_timeout = body_timeout
        secrets_of = signing.Secrets.of(secret, secrets, tenant_path)
        receivers = signing.receiver_names(name, former_names, secrets_of)
        self._dead_letters = DeadLetters(self._inbox, receivers, self._clock, on_dead_letter)
        self._worker = Worker(
            self._inbox,
            self.handlers,
            handling,
            self._clock,
            rng or random.Random(),  # noqa: S311 - jitter, not a secret
            receivers,
            on_dead=self._dead_letters.publish,
            has_listeners=lambda: not self._ingest.listeners.is_empty,
            on_published=lambda event: self._ingest.on_published(event),  # noqa: PLW0108 - made below
        )
        self._ingest = Ingest(
            secrets=secrets_of,
            unsigned_token=signing.validate_token(unsigned_token),
            tolerance=signatures.validate_tolerance(tolerance),
            max_body=max_body,
            inbox=self._inbox,
            handlers=self,
            receivers=receivers,
            clock=self._clock,
            # By its name in the module, which tests replace to stop the time.
            wall=(lambda: time.time()) if clock is None else clock.wall,  # noqa: PLW0108 - see above
            on_new=self._worker.wake,
        )
        self._life = Lifecycle(self._worker, self._dead_letters)
        self._has_warned = False

    async def receive(
        self,
        body: bytes,
        headers: Mapping[Any, Any] | Iterable[tuple[Any, Any]],
        *,
        path: str | None = None,
        tenant: str | None = None,
    ) -> WebhookReply:
        """Take one delivery, and return what to answer: at once, however long handlers take.

        The event is stored before this returns 200. What takes longer than 4 s in all, such
        as a look-up of the secret and an inbox, is answered with 503 before the sender hangs
        up. Cancelling it leaves open whether the event is stored; the sender's next attempt
        is recognised.

        Args:
            body: The body's bytes, before any parsing.
            headers: The request's headers, in any case; text or bytes.
            path: The request's path; only needed with ``unsigned_token`` or ``secrets``.
            tenant: Whose delivery it is, where the framework knows it.

        Raises:
            ClientClosedError: The receiver runs in another event loop.
        """
        return await self._receive(body, headers, path, tenant, self._ingest.begin())

    async def start_and_receive(
        self, body: bytes, headers: Any, *, path: str | None = None, tenant: str | None = None
    ) -> WebhookReply:
        """Take one delivery like `receive`, but start first if nothing did."""
        finish = self._ingest.begin()
        if not await self.ensure_started(finish):
            return WebhookReply.unavailable("not_started")
        return await self._receive(body, headers, path, tenant, finish)

    async def _receive(
        self, body: bytes, headers: Any, path: str | None, tenant: str | None, finish: Finish
    ) -> WebhookReply:
        self._check_loop()
        if self._life.state in (ReceiverState.CLOSING, ReceiverState.CLOSED):
            return WebhookReply.unavailable("shutting_down")
        if self._life.state is ReceiverState.IDLE:
            self._warn()
        return await self._ingest.handle(body, headers, path=path, tenant=tenant, finish=finish)

    async def receive_lambda(self, event: Mapping[str, Any]) -> adapters.LambdaReply:
        """Take one delivery as AWS Lambda gets it, and return what Lambda answers.

        Within ``async with hooks`` the handlers run before the function is frozen.

        Args:
            event: The event of API Gateway, a Lambda URL or a load balancer.

        Raises:
            ClientClosedError: The receiver runs in another event loop.
        """
        return await adapters.receive_lambda(self, event)

    async def ensure_started(self, finish: Finish | None = None) -> bool:
        """Start, if nothing did, as under a server without lifespan; return whether it runs."""
        self._check_loop()
        if self._life.state is not ReceiverState.IDLE:
            return True
        try:
            await (finish or self._ingest.begin())(self._life.start_unattended())
        except TimeoutError:
            _log.warning("The webhook inbox isn't open yet, so a delivery is answered with 503.")
        return self._life.state not in (ReceiverState.IDLE, ReceiverState.STARTING)

    async def complete(self, **options: Any) -> None:
        """Record that the handler that calls this is done with its event.

        With ``connection=`` of a `PostgresInbox` in the transaction of that connection, so
        that the handler's own changes and the completion are committed together.

        Raises:
            ConfigurationError: It is called outside of a handler.
        """
        run = CURRENT_RUN.get(None)
        if run is None:
            raise ConfigurationError("complete() is for handlers, while they run.")
        await self._inbox.complete(*run, **options)

    def asgi(self, *, path: str | None = None, otherwise: adapters.ASGIApp | None = None) -> Any:
        """Return an ASGI application, to be mounted or to be the server's own.

        As the server's own it starts and drains this receiver with the server; mounted in
        another it starts with the first request, and only that one's `lifespan` drains it.
        Under Starlette's ``mount`` the URL that is set up must end with a slash. It is typed
        ``Any``: no two frameworks type an ASGI application alike.

        Args:
            path: With ``otherwise``: where deliveries come in.
            otherwise: The application for all other paths, such as Django's, which has
                no lifespan of its own; it is sent no lifespan events.

        Raises:
            ConfigurationError: Only one of the two is given.
        """
        if (path is None) != (otherwise is None):
            raise ConfigurationError("asgi() takes path and otherwise together.")
        return adapters.WebhookApp(self, self._ingest.max_body, self._body_timeout, path, otherwise)

    def aiohttp_handler(self) -> "Callable[[web.Request], Awaitable[web.StreamResponse]]":
        """Return a handler for ``web.Application().router.add_post``; see `cleanup_ctx`."""
        return adapters.aiohttp_handler(
            self, max_body=self._ingest.max_body, body_timeout=self._body_timeout
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start, and drain at the end: for ``FastAPI(lifespan=hooks.lifespan)`` and its like.

        Where it runs already, it is left running at the end.

        Raises:
            ClientClosedError: It runs in another event loop, or is closing.
        """
        self._check_loop()
        if self._life.is_up:
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

        Where it fails, or is cancelled, all is as it was before.

        Raises:
            ClientClosedError: It is running already, or closing.
            ConfigurationError: The inbox can't be opened; the message says where it is.
            Exception: The inbox failed.
        """
        self._check_loop()
        await self._life.start()

    async def aclose(self) -> None:
        """Refuse further deliveries, finish what is due, and close the inbox.

        Takes ``handling.drain`` seconds at most; handlers that still run are cancelled
        then, and their events stay in an inbox that is kept on disk. Cancelling it
        cancels the handlers at once. Harmless to repeat.
        """
        self._check_loop()
        await self._life.aclose()

    async def catch_up(self, gather: CatchUpClient, *, since: datetime) -> int:
        """Deliver what the inbox has not seen of candidate interviews changed since then; how many.

        The sender gives up after three attempts, so call this after an outage. Events
        made here have ``synthetic=True``; a late real one is recognised as the same.
        Costs one request for each 100 candidate interviews, and one for each unseen
        one of which the list doesn't say when it changed.

        Args:
            gather: A client; its bulk priority suits.
            since: Aware; what changed before it is left alone.

        Raises:
            ConfigurationError: ``since`` has no zone.
            ClientClosedError: The inbox is full, and no handler is running.
            GatherError: A request failed; what was delivered until then stays.
            Exception: The inbox failed; what was delivered until then stays.
        """
        return await catch_up(
            gather, since=since, ingest=self._ingest, clock=self._clock, can_wait=lambda: self.alive
        )

    async def dead_letters(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """Return events that a handler failed on for good, oldest first, at most ``limit``."""
        return await self._dead_letters.list(limit)

    def on_dead_letter(self, callback: F) -> F:
        """Call, or await, a function with each `DeadLetter` once it is stored; a decorator."""
        self._dead_letters.callback = callback
        return callback

    async def replay(self, letters: Collection[DeadLetter] | None = None) -> int:
        """Give dead letters to their handlers again; None: all. Returns how many."""
        count = await self._dead_letters.replay(letters)
        self._worker.wake()
        return count

    async def discard(self, letters: Collection[DeadLetter] | None = None) -> int:
        """Forget dead letters; None: all. Returns how many."""
        return await self._dead_letters.discard(letters)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call a listener at once for each new event: its name, and the ids in its data.

        ``GatherClient(signals=hooks)`` uses it; any number of clients may. The function that it
        returns ends the subscription.
        """
        return self._ingest.listeners.subscribe(listener)

    @property
    def run_events(self) -> EventListeners[HandlerEnded]:
        """The listeners to its handlers: ``run_events.subscribe(function)`` adds one."""
        return self._worker.run_events

    @property
    def name(self) -> str:
        """The name under which its events are stored."""
        return self._ingest.receivers[0]

    @property
    def inbox(self) -> Inbox:
        """Where events wait."""
        return self._inbox

    @property
    def alive(self) -> bool:
        """Whether it is started and not closed, so that signals can be expected."""
        return self._life.state is ReceiverState.RUNNING

    @property
    def last_event_at(self) -> datetime | None:
        """When the last trusted delivery came, aware UTC; None if none has."""
        return self._ingest.last_event_at

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = self._life.state.value
        return f"<WebhookReceiver {state}, {len(self.handlers)} handlers, {self._inbox!r}>"

    def _warn(self) -> None:
        """Say once that events wait, unless another process may handle them."""
        if not self._has_warned and (self.handlers or not self._inbox.is_shared):
            self._has_warned = True
            _log.warning(
                "Webhooks are stored, but no handler runs: use 'async with hooks' or a lifespan."
            )

    def _check_loop(self) -> None:
        """Raise in a second loop; forget a first one that died without closing us."""
        owner = self._life.owner
        owner.check()
        if owner.loop is not None and not owner.is_here:
            self._life.forget_loop()
