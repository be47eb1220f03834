"""Events of calls, and the log.

Nothing here holds an id of the API, a body or a person: a path becomes its route template,
an error the name of its class.
"""

import asyncio
import itertools
import logging
import os
import sys
from collections.abc import Callable
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar
from weakref import ref

from attrs import define, field, frozen

from gather_async.clock import Clock
from gather_async.errors import ConfigurationError
from gather_async.protocol.requests import PREFIX, Request
from gather_async.protocol.responses import Response, redact

__all__ = [
    "CallEvents",
    "CallFailed",
    "CallRecord",
    "CallSucceeded",
    "ClientEvent",
    "EventListeners",
    "OnEvent",
    "QuotaWaited",
    "RequestStarted",
    "ResponseReceived",
    "RetryScheduled",
    "log_fields",
    "log_level",
    "operation_of",
    "start_log",
    "without_frames",
]

_LOG = logging.getLogger("gather_async.session")
E = TypeVar("E")
_NOTABLE_WAIT: Final = 0.01  # seconds; less is what asking costs, such as a journal's commit


@frozen(kw_only=True)
class ClientEvent:
    """An event in one call: of a method, of a poll, or of a look-up after a lost response.

    A call's events come in order, in the task that makes it, and their last one is
    `CallSucceeded` or `CallFailed`.
    """

    call: int
    """Number of the call in this process: the same in all its events."""
    operation: str
    """Such as ``questions.get``; ``request`` for a path that this package doesn't know."""
    method: str
    """Such as ``GET``."""
    route: str
    """The path's template, such as ``/qsi/gather/questions/{id}``."""
    attempt: int
    """Requests so far, this one included; 0 before the first."""
    status: int | None
    """Of the last response; None if there is none yet, or the last attempt got none."""
    request_id: str | None
    """The one that the last response named, for the vendor's support."""
    quota_wait: float
    """Seconds that the call waited for quota, so far."""
    backoff: float
    """Seconds that it paused between attempts; looking a lost write up included."""
    network: float
    """Seconds from a request to the end of its response, of all its attempts."""


# Not decorated: without fields of its own it is as its base, and attrs would write it anew.
class RequestStarted(ClientEvent):
    """The quota let a request go."""

    __slots__ = ()


@frozen(kw_only=True)
class ResponseReceived(ClientEvent):
    """A response was read to its end, whatever its status."""

    seconds: float
    """From this request to the end of its response."""


@frozen(kw_only=True)
class RetryScheduled(ClientEvent):
    """An attempt failed, and another one follows."""

    error: str
    """The class of the failure, such as ``ServerError``."""
    wait: float
    """Seconds until then."""
    is_hold: bool
    """Whether all calls of the key pause, because the server refused one (429)."""


@frozen(kw_only=True)
class QuotaWaited(ClientEvent):
    """The call had to wait until the quota had room; a request of it follows."""

    seconds: float
    """How long, this time."""


class CallSucceeded(ClientEvent):
    """The call returned."""

    __slots__ = ()


@frozen(kw_only=True)
class CallFailed(ClientEvent):
    """The call raised, or was cancelled."""

    error: str
    """The class of the error, such as ``NotFoundError`` or ``CancelledError``."""
    maybe_processed: bool
    """Whether a write may have been carried out all the same."""


OnEvent = Callable[[ClientEvent], object]
"""Gets each event at once: it must not block."""


class EventListeners(Generic[E]):
    """Functions that are called for each event of one kind.

    Args:
        on_event: The first listener; None: there is none yet.
        log: Where a listener that raises is logged.

    Attributes:
        listeners: Empty: nothing is observed, and all costs what it would without this.

    Raises:
        ConfigurationError: It can't be called, or is async.
    """

    __slots__ = ("__weakref__", "_log", "_numbered", "_numbers", "listeners")

    def __init__(
        self, on_event: Callable[[E], object] | None = None, *, log: logging.Logger = _LOG
    ) -> None:
        self._log = log
        self._numbers = itertools.count()
        self._numbered: dict[int, Callable[[E], object]] = {}
        self.listeners: tuple[Callable[[E], object], ...] = ()
        if on_event is not None:
            self.subscribe(on_event)

    @classmethod
    def of(cls, on_event: Callable[[E], object] | None) -> "EventListeners[E]":
        """Return ``on_event`` itself if it is the listeners of others, such as a pool's."""
        return on_event if isinstance(on_event, cls) else cls(on_event)

    def subscribe(self, on_event: Callable[[E], object]) -> Callable[[], None]:
        """Call a function for each event from now on; the returned function ends it.

        Args:
            on_event: Called at once, in the thread and task of what happens, so it must not
                block. If it raises, that is logged, and changes nothing.

        Raises:
            ConfigurationError: It can't be called, or is async.
        """
        if not callable(on_event):
            raise ConfigurationError("on_event must be a function of one event.")
        if iscoroutinefunction(on_event) or iscoroutinefunction(type(on_event).__call__):
            raise ConfigurationError(
                "on_event can't be async: no call waits for it. Put the event into a queue "
                "that a task of your own reads."
            )
        number = next(self._numbers)
        self._numbered[number] = on_event
        self.listeners = tuple(self._numbered.values())

        here = ref(self)  # a subscription that is kept keeps no client alive

        def unsubscribe() -> None:
            listeners = here()
            if listeners is not None:
                listeners._remove(number)  # noqa: SLF001 - of this class

        return unsubscribe

    def _remove(self, number: int) -> None:
        self._numbered.pop(number, None)
        self.listeners = tuple(self._numbered.values())

    def __call__(self, event: E) -> None:
        """Call all listeners; one that raises keeps no other from its call."""
        for listener in self.listeners:
            try:
                listener(event)
            except (Exception, asyncio.CancelledError) as error:
                extra = log_fields(error=error)
                self._log.exception("on_event raised at %s", type(event).__name__, extra=extra)


CallEvents = EventListeners[ClientEvent]
"""The listeners to the calls of a client, or of all clients of a pool."""

_CALLS = itertools.count(1)


@define(eq=False, kw_only=True)
class CallRecord:
    """The course of one observed call. As a context manager it publishes the call's end."""

    events: CallEvents = field(repr=False)
    clock: Clock = field(repr=False)
    request: Request
    call: int = field(factory=lambda: next(_CALLS))
    attempt: int = 0
    status: int | None = None
    request_id: str | None = None
    quota_wait: float = 0.0
    backoff: float = 0.0
    network: float = 0.0
    _name: tuple[str, str] | tuple[()] = ()
    _reported_wait: float = 0.0
    _began: float = 0.0

    def started(self, attempt: int) -> None:
        """Record that a request may go."""
        seconds, self._reported_wait = self.quota_wait - self._reported_wait, self.quota_wait
        if seconds >= _NOTABLE_WAIT:
            self._publish(QuotaWaited, seconds=seconds)
        self.attempt, self.status, self.request_id = attempt, None, None
        self._publish(RequestStarted)
        self._began = self.clock.monotonic()

    def answered(self, response: Response | None, *, secret: str) -> None:
        """Record the end of a request; None: no response came. The secret is left out."""
        seconds = self.clock.monotonic() - self._began
        self.network += seconds
        if response is not None:
            self.status = response.status
            self.request_id = redact(response.request_id or "", secret) or None
            self._publish(ResponseReceived, seconds=seconds)

    def retrying(self, error: BaseException | None, wait: float, *, is_hold: bool) -> None:
        """Record that another attempt follows."""
        self._publish(RetryScheduled, error=type(error).__name__, wait=wait, is_hold=is_hold)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._publish(CallSucceeded)
            return
        without_frames(error)  # a listener that raises is logged with this as its context
        self._publish(
            CallFailed,
            error=type(error).__name__,
            maybe_processed=bool(getattr(error, "maybe_processed", False)),
        )

    def _publish(self, kind: type[ClientEvent], **fields: Any) -> None:
        if not self._name:  # once for each call: it takes as long as to make an event
            self._name = operation_of(self.request)
        operation, route = self._name
        self.events(
            kind(
                call=self.call,
                operation=operation,
                method=self.request.method,
                route=route,
                attempt=self.attempt,
                status=self.status,
                request_id=self.request_id,
                quota_wait=self.quota_wait,
                backoff=self.backoff,
                network=self.network,
                **fields,
            )
        )


_COLLECTIONS: Final = frozenset(
    {
        "candidate-interviews",
        "candidates",
        "interviews",
        "message-groups",
        "narrators",
        "questions",
        "teams",
        "users",
    }
)
_ACTIONS: Final = {
    ("GET", ""): "list",
    ("POST", ""): "create",
    ("PATCH", "/bulk-update"): "bulk_update",
    ("GET", "/{id}"): "get",
    ("PATCH", "/{id}/status"): "update_status",
    ("GET", "/{id}/results"): "results",
    ("POST", "/{id}/resend-invite"): "resend_invite",
}


def operation_of(request: Request) -> tuple[str, str]:
    """Return a request's operation and route template.

    >>> operation_of(Request(method="GET", path="/qsi/gather/questions/q-1"))
    ('questions.get', '/qsi/gather/questions/{id}')
    >>> operation_of(Request(method="GET", path="/qsi/gather/anything/else"))
    ('request', '/{path}')
    """
    collection, slash, rest = request.path.removeprefix(PREFIX).partition("/")
    if collection in _COLLECTIONS and request.path.startswith(PREFIX):
        key, second_slash, part = rest.partition("/")
        has_key = key and (request.method, slash + key) not in _ACTIONS
        tail = f"/{{id}}{second_slash}{part}" if has_key else slash + rest
        action = _ACTIONS.get((request.method, tail))
        if action is not None:
            return f"{collection.replace('-', '_')}.{action}", f"{PREFIX}{collection}{tail}"
    return "request", "/{path}"


def log_fields(request: Request | None = None, **fields: object) -> dict[str, object]:
    """Return the ``extra`` of a log record; each name begins with ``gather_``.

    Of an error only its class is named.
    """
    named: dict[str, object] = {}
    if request is not None:
        operation, route = operation_of(request)
        named = {"operation": operation, "method": request.method, "route": route}
    for name, value in fields.items():
        named[name] = type(value).__name__ if isinstance(value, BaseException) else value
    return {f"gather_{name}": value for name, value in named.items()}


B = TypeVar("B", bound=BaseException)


def without_frames(error: B) -> B:
    """Return the error without the frames that it, and what caused it, passed through.

    Error reporters print the locals of frames; those of a call hold the key and persons.
    """
    each: BaseException | None = error
    seen: set[int] = set()  # a chain may be a circle
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def log_level() -> int | None:
    """Return the level that ``GATHER_LOG`` asks for: ``info`` if it is no level; None if unset."""
    word = os.environ.get("GATHER_LOG", "").strip().upper()
    return logging.getLevelNamesMapping().get(word, logging.INFO) if word else None


def start_log() -> None:
    """Write the package's log to standard error if ``GATHER_LOG`` asks for it.

    A program that has set up its own logging gets no line twice: only the level is changed.
    """
    level, logger = log_level(), logging.getLogger("gather_async")
    if level is None or logger.handlers:  # the command line has its own
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda _: not logging.root.handlers)
    logger.addHandler(handler)
    logger.setLevel(level)
