"""`verify` and `sign`, at this machine's time."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from gather_async.errors import ConfigurationError
from gather_async.protocol import signatures
from gather_async.webhooks.events import WebhookEvent, decode_event

__all__ = ["SignedSample", "sample", "sample_body", "sign", "verify"]


def verify(
    body: bytes,
    signature_header: str | None,
    *,
    secret: str | Sequence[str],
    tolerance: float = 300.0,
) -> WebhookEvent:
    """Return the event of a delivery, if its signature is valid and fresh.

    Costs about 20 µs; a body that has to be written again as JavaScript would,
    about 0.2 s a megabyte. What is returned is what was signed.

    Args:
        body: The body's bytes as they came, before any parsing.
        signature_header: The value of ``X-Qualifi-Signature``; None if it is missing.
        secret: The webhook's secret, or several while one replaces the other.
        tolerance: Seconds that the signature's timestamp may differ from now, either
            way. A retry may carry its first timestamp, so 300 can refuse the last one.

    Raises:
        WebhookVerificationError: It can't be trusted, or is no event; ``reason`` says
            why. No body and no header raise anything else.
        ConfigurationError: The secret is blank, or the tolerance no number of seconds.

    Source: /api-reference/webhooks, /guides/handling-webhooks
    """
    signed = signatures.verify(
        body,
        signature_header,
        secrets=signatures.validate_secrets(secret),
        tolerance=signatures.validate_tolerance(tolerance),
        now=time.time(),
    )
    return decode_event(signed.text)


def sign(
    body: bytes | str,
    *,
    secret: str | Sequence[str],
    timestamp: float | str | datetime | None = None,
) -> str:
    """Return the value of ``X-Qualifi-Signature`` for a body: for tests and tools.

    >>> sign(b"{}", secret="s", timestamp=1)
    't=1,v1=33ab24ab6f7d10b15d0d3abdaf49a1d25bbd06f71b7a6bcb12bbd41d97fcec49'

    Args:
        body: What will be sent; text is encoded as UTF-8.
        secret: The webhook's secret; of several the first, the newest, signs.
        timestamp: Unix seconds, an aware datetime, or text that goes in as it is; None: now.

    Raises:
        ConfigurationError: The secret is blank, or the timestamp's text or zone can't work.
    """
    newest = signatures.validate_secrets(secret)[0]
    raw = body.encode() if isinstance(body, str) else bytes(body)
    return signatures.sign(raw, secret=newest, timestamp=_timestamp_text(timestamp))


def _timestamp_text(timestamp: float | str | datetime | None) -> str:
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ConfigurationError("timestamp must be an aware datetime: give it a tzinfo.")
        timestamp = timestamp.timestamp()
    if isinstance(timestamp, str):
        if timestamp != timestamp.strip() or "," in timestamp or not timestamp.isascii():
            raise ConfigurationError("timestamp can't be in the header: no comma, no spaces.")
        return timestamp
    return str(int(time.time() if timestamp is None else timestamp))


@frozen
class SignedSample:
    """What a delivery consists of."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


def sample_body(
    event: str, *, data: Mapping[str, Any] | None = None, at: datetime | None = None
) -> bytes:
    """Return the body of a sample event, in compact JSON, as the sender's samples sign it.

    Only ``candidate_interview.completed`` has documented data; the data of the
    others is what its accessors look for, so don't take it for the API's word.

    Args:
        event: The event's name; any text goes.
        data: Instead of made-up data with new ids.
        at: When it happened, aware; None: now.
    """
    instant = (at or datetime.now(UTC)).astimezone(UTC)
    timestamp = instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {
        "event": event,
        "timestamp": timestamp,
        "data": _data(event, timestamp) if data is None else data,
    }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def sample(
    event: str,
    *,
    secret: str,
    data: Mapping[str, Any] | None = None,
    at: datetime | None = None,
    tamper: bool = False,
    age: float = 0.0,
) -> SignedSample:
    """Return a signed delivery of a sample event.

    Args:
        event: The event's name.
        secret: The webhook's secret.
        data: Instead of made-up data with new ids.
        at: When it happened, and was signed, aware; None: now.
        tamper: Change the body after it was signed; a good endpoint answers 401.
        age: Seconds by which the signature is old; above the tolerance a good endpoint
            answers 401.

    Raises:
        ConfigurationError: The secret is blank.
    """
    at = at or datetime.now(UTC)
    body = sample_body(event, data=data, at=at)
    header = sign(body, secret=secret, timestamp=at.timestamp() - age)
    if tamper:
        body = body.replace(b"{", b'{"tampered":true,', 1)
    return SignedSample(body, {"content-type": "application/json", "x-qualifi-signature": header})


def _data(event: str, timestamp: str) -> dict[str, Any]:
    def new_id() -> str:
        return str(uuid.uuid4())

    if event.startswith("candidate_interview."):
        data = {
            "candidateInterviewId": new_id(),
            "candidateId": new_id(),
            "interviewId": new_id(),
            "status": "new_response",
        }
        return data | ({"takenAt": timestamp} if event.endswith(".completed") else {})
    if event.startswith("interview."):
        return {"interviewId": new_id()}
    return {"questionId": new_id()} if event.startswith("question.") else {}
