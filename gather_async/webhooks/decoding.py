"""From verified JSON text to an event."""

from gather_async.errors import WebhookFailure, WebhookVerificationError
from gather_async.protocol.javascript import parse
from gather_async.webhooks.events import EVENT_CLASSES, UnknownEvent, WebhookEvent, instant_of

__all__ = ["decode_event"]

_NAMED = frozenset({"event", "timestamp", "data"})


def decode_event(
    text: str, *, synthetic: bool = False, signed: bool = True, default_event: str | None = None
) -> WebhookEvent:
    """Return the event that a body describes.

    Args:
        text: The body: ``{event, timestamp, data}``. A missing or null ``data`` is empty.
        synthetic: Marks the event as made up by a look at the server.
        signed: False marks the event as one that nobody vouches for.
        default_event: What a body without ``event`` is; all of it is the data then.

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
    )


def _malformed(problem: str) -> WebhookVerificationError:
    return WebhookVerificationError(
        f"The body is no event: {problem}.", reason=WebhookFailure.MALFORMED_BODY
    )
