"""Signed sample deliveries, for trying an endpoint."""

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from attrs import field, frozen

from gather_async.webhooks.signing import sign

__all__ = ["SAMPLE_EVENTS", "SignedSample", "sample", "sample_body"]

SAMPLE_EVENTS: Final = (
    "candidate_interview.completed",
    "candidate_interview.status_changed",
    "interview.created",
    "interview.updated",
    "question.audio_generated",
)
"""The documented events, sorted. Source: /api-reference/webhooks"""


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
    tamper: bool = False,
    age: float = 0.0,
) -> SignedSample:
    """Return a signed delivery of a sample event.

    Args:
        event: The event's name.
        secret: The webhook's secret.
        data: Instead of made-up data with new ids.
        tamper: Change the body after it was signed; a good endpoint answers 401.
        age: Seconds by which the signature is old; above the tolerance a good endpoint
            answers 401.

    Raises:
        ConfigurationError: The secret is blank.
    """
    body = sample_body(event, data=data)
    header = sign(body, secret=secret, timestamp=datetime.now(UTC).timestamp() - age)
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
