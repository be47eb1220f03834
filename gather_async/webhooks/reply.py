"""What the sender is told."""

import json
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

__all__ = ["WebhookReply"]

_JSON: Final = {"content-type": "application/json"}


@frozen
class WebhookReply:
    """The answer to one delivery; any framework can send it.

    200 taken, also a duplicate; 400 the body is no event; 401 the signature;
    405; 408 the body did not come in time; 413 the body is too large; 503 the
    inbox is full or can't be written, so that the sender tries again.
    """

    status: int
    body: str
    """JSON text: ``{"status": ...}`` and, for a refusal, its ``reason``."""
    headers: Mapping[str, str] = field(factory=_JSON.copy, hash=False)
    """Header fields to send, names in lower case."""

    @classmethod
    def taken(cls, *, is_duplicate: bool) -> "WebhookReply":
        """Return the answer to a trusted delivery."""
        word = "duplicate" if is_duplicate else "taken"
        return cls(200, json.dumps({"status": word}))

    @classmethod
    def refused(cls, status: int, reason: str, **headers: str) -> "WebhookReply":
        """Return the answer to a delivery that was not taken."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps({"status": "refused", "reason": reason}), _JSON | named)

    @classmethod
    def wrong_method(cls) -> "WebhookReply":
        """Return the answer to anything but POST."""
        return cls.refused(405, "method_not_allowed", allow="POST")

    @classmethod
    def too_large(cls) -> "WebhookReply":
        """Return the answer to a body beyond the limit; the rest of it isn't read."""
        return cls.refused(413, "body_too_large", connection="close")

    @classmethod
    def too_slow(cls) -> "WebhookReply":
        """Return the answer to a body that doesn't come."""
        return cls.refused(408, "body_too_slow", connection="close")

    @classmethod
    def unavailable(cls, reason: str) -> "WebhookReply":
        """Return the answer that makes the sender try again."""
        return cls.refused(503, reason, retry_after="60")
