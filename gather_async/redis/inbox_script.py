"""Arguments and replies of the inbox's script, to and from events."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from gather_async.webhooks.inbox import (
    ClaimedEvent,
    ClaimReport,
    DeadLetter,
    EventState,
    HandlerFailure,
    StoredEvent,
)

__all__ = [
    "chosen",
    "claimed_of",
    "event_of",
    "identity_of",
    "letter_of",
    "milliseconds",
    "pairs",
    "spec_of",
    "to_bytes",
    "to_text",
]

_HORIZON: Final = 7200.0  # seconds; as in the script


def identity_of(event: StoredEvent) -> dict[str, Any]:
    """Return what a duplicate is recognised by, as the script reads it."""
    return {
        "keys": [event.key, *event.aliases],
        "subjects": list(event.subjects),
        "state": event.state,
        "synthetic": event.synthetic,
    }


def spec_of(report: ClaimReport) -> dict[str, Any]:
    """Return a report as the script reads it."""
    state = EventState.IGNORED if report.is_ignored else EventState.DONE
    return {
        "key": report.claimed.event.key,
        "token": report.claimed.token,
        "done": list(report.done),
        "failed": [
            [name, each.failures, milliseconds(each.retry_in), _storable(each.error)]
            for name, each in report.failed.items()
        ],
        "dead": [
            [name, each.failures, _storable(each.error)] for name, each in report.dead.items()
        ],
        "due_in": -1 if report.due_in is None else milliseconds(report.due_in),
        "waits_for": report.waits_for,
        "state": state.value,
    }


def claimed_of(crashes: int, fields: Mapping[str, str], token: str, now: int) -> ClaimedEvent:
    """Return a claimed event of the fields of its hash."""
    return ClaimedEvent(
        event=event_of(fields["meta"], fields["text"]),
        ended=frozenset(name[2:] for name in fields if name[:2] in ("h:", "d:")),
        failures={
            name[2:]: _failure_of(value, now)
            for name, value in fields.items()
            if name.startswith("f:")
        },
        crashes=crashes,
        token=token,
    )


def _failure_of(value: str, now: int) -> HandlerFailure:
    failures, due_at, error = value.split(":", 2)
    retry_in = (int(due_at) - now) / 1000
    # A pause is an hour at most, unless the clock went back.
    retry_in = retry_in if retry_in < _HORIZON else 0.0
    return HandlerFailure(failures=int(failures), error=error, retry_in=retry_in)


def letter_of(name: str, meta: str | bytes, text: str | bytes, failure: str | bytes) -> DeadLetter:
    """Return a dead letter of its name in the list, and of the event and the failure."""
    event, (failures, dead_at, error) = event_of(meta, text), to_text(failure).split(":", 2)
    return DeadLetter(
        event=event.decode(),
        handler=name.partition("\n")[2],
        key=event.key,
        receiver=event.receiver,
        failures=int(failures),
        dead_at=int(dead_at) / 1000,
        error=error,
    )


def event_of(meta: str | bytes, text: str | bytes) -> StoredEvent:
    """Return an event as it was put."""
    return StoredEvent(text=to_text(text), **json.loads(meta))


def pairs(flat: Sequence[str | bytes]) -> dict[str, str]:
    """Return what a hash holds."""
    parts: Iterator[str] = map(to_text, flat)
    return dict(zip(parts, parts, strict=True))


def chosen(keys: Collection[str], handlers: Collection[str] | None) -> tuple[str, str]:
    """Return which events, and which of their handlers, as the script reads it."""
    names = None if handlers is None else list(handlers)
    return json.dumps(list(dict.fromkeys(keys))), json.dumps(names)


def milliseconds(seconds: float) -> int:
    """Return a duration as the script counts; more rather than less, and none below 0."""
    return max(0, math.ceil(seconds * 1000))


def _storable(error: str) -> str:
    """Return a message that the script can read: it refuses lone surrogates."""
    return error.encode("utf-8", "backslashreplace").decode()


def to_bytes(text: str) -> bytes:
    """Return a text as it is kept, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def to_text(reply: str | bytes) -> str:
    """Return a reply as text; a lent client may have decoded it."""
    return reply if isinstance(reply, str) else reply.decode("utf-8", "surrogatepass")
