"""The events, as data.

Only ``event``, ``timestamp`` and ``data`` may be relied on; the data of four of
the five events is documented nowhere. So every accessor looks where the value
could be, and is None if it is not there: read the object itself before acting.
Source: /api-reference/webhooks
"""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, ClassVar, Final

from attrs import field, frozen

from gather_async.errors import WebhookFailure, WebhookVerificationError
from gather_async.models.enums import CandidateInterviewStatus
from gather_async.protocol.javascript import parse
from gather_async.protocol.signatures import read_instant
from gather_async.validators import is_number, is_whole

__all__ = [
    "ALL_EVENTS",
    "CandidateInterviewCompleted",
    "CandidateInterviewStatusChanged",
    "EVENT_CLASSES",
    "InterviewCreated",
    "InterviewUpdated",
    "QuestionAudioGenerated",
    "UNDOCUMENTED_EVENTS",
    "UnknownEvent",
    "WebhookEvent",
    "decode_event",
    "instant_of",
    "is_wanted",
]

_EVENT_ID_KEYS = ("id", "eventId", "event_id")
_ID_ENDINGS = ("Id", "ID", "_id", "Ids", "IDs", "_ids")


@frozen(kw_only=True)
class WebhookEvent:
    """Base of all events. Its ``repr`` shows no data."""

    NAME: ClassVar[str | None] = None
    """The wire name of this class of events; None if it stands for any."""

    event: str
    """The event's name on the wire, such as ``question.audio_generated``."""
    timestamp: datetime | None = None
    """When it happened, aware UTC; None if the sender didn't say it in a way we can read."""
    data: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """What happened, as sent. Don't change it."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields beside ``event``, ``timestamp`` and ``data``, as sent."""
    synthetic: bool = False
    """Whether `WebhookReceiver.catch_up` made it up from a look at the server."""
    signed: bool = True
    """False if it came without a signature through the unguessable address of
    `WebhookReceiver`'s ``unsigned_token``: believe nothing of it, read the object."""
    tenant: str | None = None
    """Whose secret it was signed with, if the receiver has ``secrets`` of several tenants."""
    raw_timestamp: Any = field(default=None, repr=False, hash=False)
    """The timestamp as sent."""

    @property
    def id(self) -> str | None:
        """The event's own id, if there is one; none is documented."""
        return _first(self.extra, *_EVENT_ID_KEYS)

    @property
    def dedupe_key(self) -> str:
        """The same for each delivery of one event, however it and its timestamp are formatted.

        A hash of event name, timestamp and data; of the event's own id and the tenant,
        too, if there are any. Source: /guides/best-practices asks for the id, which the
        payload at /api-reference/webhooks doesn't have, and which may be that of an object.
        """
        parts = [self.event, self._instant() or self.raw_timestamp, self.data]
        if self.id is not None or self.tenant is not None:
            parts += [self.id, self.tenant]
        return f"sha256:{_digest(_plain(parts))}"

    @property
    def ids(self) -> frozenset[str]:
        """Every id found in the data, at any depth."""
        return frozenset(_ids_in(self.data))

    def _instant(self) -> str | None:
        return None if self.timestamp is None else self.timestamp.isoformat()


@frozen(kw_only=True)
class UnknownEvent(WebhookEvent):
    """An event that the documentation doesn't name."""


@frozen(kw_only=True)
class QuestionAudioGenerated(WebhookEvent):
    """The audio of a question is ready. Its data is undocumented."""

    NAME: ClassVar[str] = "question.audio_generated"
    event: str = NAME

    @property
    def question_id(self) -> str | None:
        """The question's id, if it is where it could be."""
        return _id_of(self.data, "question")

    @property
    def audio_url(self) -> str | None:
        """The audio's address, if it is where it could be."""
        names = ("audioURL", "audioUrl", "audio_url")
        return _first(self.data, *names) or _first(_object(self.data, "question"), *names)


class _AboutCandidateInterview(WebhookEvent):
    """Accessors that two events share."""

    __slots__ = ()

    @property
    def candidate_interview_id(self) -> str | None:
        """The candidate interview's id, if it is where it could be."""
        return _id_of(self.data, "candidateInterview")

    @property
    def candidate_id(self) -> str | None:
        """The candidate's id, if it is where it could be."""
        return self._related("candidate")

    @property
    def interview_id(self) -> str | None:
        """The interview's id, if it is where it could be."""
        return self._related("interview")

    @property
    def status(self) -> CandidateInterviewStatus | None:
        """The status after the event, if it is where it could be."""
        names = ("status", "newStatus", "new_status")
        inner = _object(self.data, "candidateInterview")
        word = _first(self.data, *names) or _first(inner, *names)
        return None if word is None else CandidateInterviewStatus(word)

    def _related(self, name: str) -> str | None:
        inner = _object(self.data, "candidateInterview")
        found = _id_of(self.data, name, bare=False)
        return found or _id_of(inner, name, bare=False)


@frozen(kw_only=True)
class CandidateInterviewCompleted(_AboutCandidateInterview):
    """A candidate has finished an interview. The one event whose data is documented."""

    NAME: ClassVar[str] = "candidate_interview.completed"
    event: str = NAME

    @property
    def taken_at(self) -> datetime | None:
        """When the candidate took the interview, aware UTC, if the event says so."""
        return instant_of(self.data.get("takenAt"))


@frozen(kw_only=True)
class CandidateInterviewStatusChanged(_AboutCandidateInterview):
    """The status of a candidate interview has changed. Its data is undocumented."""

    NAME: ClassVar[str] = "candidate_interview.status_changed"
    event: str = NAME

    @property
    def previous_status(self) -> CandidateInterviewStatus | None:
        """The status before the event, if it is where it could be."""
        names = ("previousStatus", "oldStatus", "previous_status", "old_status")
        word = _first(self.data, *names)
        return None if word is None else CandidateInterviewStatus(word)


class _AboutInterview(WebhookEvent):
    """Accessors that two events share."""

    __slots__ = ()

    @property
    def interview_id(self) -> str | None:
        """The interview's id, if it is where it could be."""
        return _id_of(self.data, "interview")


@frozen(kw_only=True)
class InterviewCreated(_AboutInterview):
    """An interview was made. Its data is undocumented."""

    NAME: ClassVar[str] = "interview.created"
    event: str = NAME


@frozen(kw_only=True)
class InterviewUpdated(_AboutInterview):
    """An interview has changed. Its data is undocumented."""

    NAME: ClassVar[str] = "interview.updated"
    event: str = NAME


EVENT_CLASSES: Final[Mapping[str, type[WebhookEvent]]] = {
    cls.NAME: cls
    for cls in (
        QuestionAudioGenerated,
        CandidateInterviewCompleted,
        CandidateInterviewStatusChanged,
        InterviewCreated,
        InterviewUpdated,
    )
}
"""The documented events by their names on the wire. Source: /api-reference/webhooks"""


def instant_of(value: Any) -> datetime | None:
    """Return an instant as sent, aware UTC; None if it can't be read."""
    if not isinstance(value, str) and not is_number(value):
        return None
    seconds = read_instant(value if isinstance(value, str) else f"{value}")
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def _first(source: Mapping[str, Any], *names: str) -> str | None:
    """Return the first of these fields that holds text, or a number as text."""
    for name in names:
        value = source.get(name)
        if isinstance(value, str) and value:
            return value
        if value is not None and is_whole(value):
            return str(value)
    return None


def _object(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a nested object by its camel case name or its snake case one; empty if absent."""
    for spelling in (name, _snake(name)):
        value = source.get(spelling)
        if isinstance(value, Mapping):
            return value
    return {}


def _id_of(source: Mapping[str, Any], name: str, *, bare: bool = True) -> str | None:
    """Return the id of the named object: ``nameId``, ``name.id``, or the plain ``id``."""
    direct = _first(source, f"{name}Id", f"{_snake(name)}_id", f"{name}ID")
    nested = direct or _first(_object(source, name), "id")
    return nested or (_first(source, "id") if bare else None)


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _ids_in(value: Any) -> Iterator[str]:
    """Give every id in a value whose depth is bounded by the reader of JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("id", "ids") or key.endswith(_ID_ENDINGS):
                yield from _scalars(inner)
            yield from _ids_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _ids_in(inner)


def _scalars(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, str) or is_whole(each):
            yield str(each)


def _plain(value: Any) -> Any:
    """Return a value with numbers that JSON can write in two ways written in one."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


ALL_EVENTS: Final = "*"
UNDOCUMENTED_EVENTS: Final = "?"


def is_wanted(event: str, wanted: Collection[str]) -> bool:
    """Return whether an event is among those that a handler wants.

    >>> is_wanted("an.event.of.tomorrow", {"interview.created", "?"})
    True
    """
    if event in wanted or ALL_EVENTS in wanted:
        return True
    return UNDOCUMENTED_EVENTS in wanted and event not in EVENT_CLASSES


_NAMED = frozenset({"event", "timestamp", "data"})


def decode_event(
    text: str,
    *,
    synthetic: bool = False,
    signed: bool = True,
    default_event: str | None = None,
    tenant: str | None = None,
) -> WebhookEvent:
    """Return the event that a body describes.

    Args:
        text: The body: ``{event, timestamp, data}``. A missing or null ``data`` is empty.
        synthetic: Marks the event as made up by a look at the server.
        signed: False marks the event as one without proof of its sender.
        default_event: What a body without ``event`` is; all of it is the data then.
        tenant: Whose secret it was signed with.

    Raises:
        WebhookVerificationError: It is no event; the reason is ``MALFORMED_BODY``.
    """
    try:
        body = parse(text)
    except ValueError:
        raise _malformed("it is not JSON") from None
    if not isinstance(body, dict):
        raise _malformed("it is not an object")
    if "event" not in body and default_event is not None:
        body = {"event": default_event, "timestamp": body.get("timestamp"), "data": body}
    name, timestamp, data = body.get("event"), body.get("timestamp"), body.get("data")
    if not isinstance(name, str) or not name:
        raise _malformed("it names no event")
    if data is not None and not isinstance(data, dict):
        raise _malformed("its data is not an object")
    event_class = EVENT_CLASSES.get(name, UnknownEvent)
    return event_class(
        event=name,
        timestamp=instant_of(timestamp),
        raw_timestamp=timestamp,
        data=data or {},
        extra={key: value for key, value in body.items() if key not in _NAMED},
        synthetic=synthetic,
        signed=signed,
        tenant=tenant,
    )


def _malformed(problem: str) -> WebhookVerificationError:
    return WebhookVerificationError(
        f"The body is no event: {problem}.", reason=WebhookFailure.MALFORMED_BODY
    )
