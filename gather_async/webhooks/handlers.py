"""Handlers: their registration, and which events each wants."""

import difflib
import itertools
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from inspect import iscoroutinefunction, signature
from typing import Any, Generic, Literal, TypeVar, overload

from attrs import field, frozen

from gather_async.errors import ConfigurationError
from gather_async.webhooks.events import (
    ALL_EVENTS,
    EVENT_CLASSES,
    UNDOCUMENTED_EVENTS,
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
    InterviewCreated,
    InterviewUpdated,
    QuestionAudioGenerated,
    UnknownEvent,
    WebhookEvent,
    is_wanted,
)

__all__ = ["Handler", "Handlers", "Registration", "nearest_event"]

# A known name narrows the class of events that the decorator wants, on purpose.
# mypy: disable-error-code="overload-overlap"


E = TypeVar("E", bound=WebhookEvent)
T = TypeVar("T")


@frozen(kw_only=True, eq=False)
class Handler:
    """A function, and the events that it wants."""

    name: str
    """Stable from one run of the program to the next."""
    function: Callable[[Any], Coroutine[Any, Any, object]] = field(repr=False)
    events: frozenset[str] = frozenset()
    """Names of events; ``*`` for all, ``?`` for those that are not documented."""


@frozen
class Registration(Generic[E]):
    """A decorator that keeps the function as it is; its event's class is type-checked."""

    _add: Callable[[Callable[[Any], Coroutine[Any, Any, object]]], None]

    def __call__(
        self, handler: Callable[[E], Coroutine[Any, Any, T]]
    ) -> Callable[[E], Coroutine[Any, Any, T]]:
        """Register the handler."""
        self._add(handler)
        return handler


class Handlers:
    """All handlers of a receiver; what `WebhookReceiver` inherits ``on`` from."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    @overload
    def on(self, event: type[E], *, name: str | None = None) -> Registration[E]: ...
    # A known name narrows the decorator's class of events, which pyright calls incompatible.
    @overload
    def on(  # pyright: ignore[reportOverlappingOverload]
        self, event: Literal["question.audio_generated"], *, name: str | None = None
    ) -> Registration[QuestionAudioGenerated]: ...
    @overload
    def on(
        self, event: Literal["candidate_interview.completed"], *, name: str | None = None
    ) -> Registration[CandidateInterviewCompleted]: ...
    @overload
    def on(
        self, event: Literal["candidate_interview.status_changed"], *, name: str | None = None
    ) -> Registration[CandidateInterviewStatusChanged]: ...
    @overload
    def on(
        self, event: Literal["interview.created"], *, name: str | None = None
    ) -> Registration[InterviewCreated]: ...
    @overload
    def on(
        self, event: Literal["interview.updated"], *, name: str | None = None
    ) -> Registration[InterviewUpdated]: ...
    @overload
    def on(self, event: Literal["*"], *, name: str | None = None) -> Registration[WebhookEvent]: ...
    # Takes handlers of any event, too; those of one documented class need its very name.
    @overload
    def on(
        self, event: str, *, name: str | None = None, allow_unknown: bool = False
    ) -> Registration[UnknownEvent]: ...

    def on(
        self,
        event: str | type[WebhookEvent],
        *,
        name: str | None = None,
        allow_unknown: bool = False,
    ) -> Registration[Any]:
        """Register the decorated async function for an event.

        Any number of functions may be registered for one event, and one function for
        several. Each gets each event at least once: with a crash or a lost lease it
        may run again, so it should be idempotent. Events are in no order.

        Args:
            event: The event's name on the wire, ``"*"`` for all, or a class of events.
            name: Under which the inbox remembers that this handler is done with an
                event; None: module and qualified name, with a number if there are
                several of it, in the order of registration. Give one to a function that
                may be moved, renamed or registered in another order while events wait.
            allow_unknown: Whether the name may be one that the documentation doesn't have.

        Raises:
            ConfigurationError: No event of that name is documented, the function isn't
                async or doesn't take an event, or another was given this name.
        """
        target = _target(event, allow_unknown=allow_unknown)

        def add(function: Callable[[Any], Coroutine[Any, Any, object]]) -> None:
            self._add(function, target, name)

        return Registration(add)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """All handlers by their names."""
        return self._handlers

    def names_for(self, event: str) -> list[str]:
        """Return the names of the handlers that want the event of a name."""
        return [name for name, each in self._handlers.items() if is_wanted(event, each.events)]

    def _add(
        self,
        function: Callable[[Any], Coroutine[Any, Any, object]],
        target: str,
        name: str | None,
    ) -> None:
        own_name = _stable_name(function)
        if not iscoroutinefunction(function) and not iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object may be the handler
        ):
            raise ConfigurationError(f"The handler {own_name} must be an async function.")
        if not _takes_one(function):
            raise ConfigurationError(f"The handler {own_name} must take one argument, the event.")
        name = name or self._free_name(own_name, function)
        known = self._handlers.get(name)
        # Each look at a bound method makes another object, equal to the first.
        if known is not None and known.function != function:
            raise ConfigurationError(
                f"Two handlers are named {name}, and the inbox could not keep them apart: "
                "give one of them on(..., name=...)."
            )
        events = {target} | (known.events if known else set())
        self._handlers[name] = Handler(name=name, function=function, events=frozenset(events))

    def _free_name(self, own_name: str, function: Any) -> str:
        """Return a name that no other has: closures and methods of two objects share one."""
        name = own_name
        for number in itertools.count(2):
            known = self._handlers.get(name)
            if known is None or known.function == function:
                break
            name = f"{own_name}#{number}"
        return name


def _target(event: Any, *, allow_unknown: bool) -> str:
    if isinstance(event, str) and event:
        if event not in EVENT_CLASSES and event != ALL_EVENTS and not allow_unknown:
            raise _unknown_event(event)
        return event
    if event is UnknownEvent:
        return UNDOCUMENTED_EVENTS
    if event is WebhookEvent:
        return ALL_EVENTS
    for name, event_class in EVENT_CLASSES.items():
        if event is event_class:
            return name
    raise ConfigurationError('on() takes the name of an event, "*", or a class of events.')


def nearest_event(event: str) -> str | None:
    """Return the documented event that a misspelt name is like; None if none is."""
    return next(iter(difflib.get_close_matches(event.lower(), EVENT_CLASSES, n=1)), None)


def _unknown_event(event: str) -> ConfigurationError:
    nearest = nearest_event(event)
    advice = f'did you mean "{nearest}"? If not' if nearest else "if it is new"
    return ConfigurationError(
        f'No event "{event}" is documented: {advice}, say on(..., allow_unknown=True).'
    )


def _takes_one(function: Callable[..., object]) -> bool:
    """Return whether a function may be called with one argument; True if it doesn't say."""
    try:
        known = signature(function)
    except (TypeError, ValueError):
        return True
    try:
        known.bind(None)
    except TypeError:
        return False
    return True


def _stable_name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}.{owner.__qualname__}"
