"""What FakeGather answers: the documented envelopes, and the refusals.

Source: /getting-started/overview (success), /guides/error-handling (errors)
"""

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

__all__ = [
    "Refusal",
    "Reply",
    "duplicate",
    "encode",
    "invalid",
    "no_such_path",
    "not_found",
    "too_many",
    "unauthorized",
]

_WORDS = {
    400: ("VALIDATION_ERROR", "The request is not valid."),
    401: ("UNAUTHORIZED", "Invalid API key."),
    404: ("NOT_FOUND", "The resource was not found."),
    429: ("RATE_LIMIT_EXCEEDED", "Rate limit exceeded."),
    500: ("INTERNAL_ERROR", "An unexpected error occurred."),
}
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


@frozen(kw_only=True)
class Reply:
    """One answer before it has a request id.

    Attributes:
        status: HTTP status.
        data: What goes under ``data``.
        pagination: What goes under ``meta.pagination``; None leaves it out.
        has_meta: False for the one documented answer without ``meta``.
    """

    status: int = 200
    data: Any = None
    pagination: Mapping[str, int] | None = None
    has_meta: bool = True


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """The request gets an error envelope; carried up to the exchange."""

    def __init__(
        self,
        status: int,
        message: str | None = None,
        details: Mapping[str, Any] | None = None,
        *,
        code: str | None = None,
    ) -> None:
        known_code, known_message = _WORDS.get(status, (f"HTTP_{status}", f"Status {status}."))
        self.status = status
        self.code = code or known_code
        self.message = message or known_message
        self.details = details
        super().__init__(f"{status} {self.code}")

    def envelope(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        """Return the documented error body."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        return {"error": error, "meta": meta}


def invalid(name: str, reason: str) -> Refusal:
    """Refuse one field or query parameter."""
    return Refusal(400, f"Invalid {name}: {reason}", {"field": name, "reason": reason})


def not_found(resource: str, id: str) -> Refusal:
    """Refuse an id that no object of this organization has."""
    return Refusal(404, f"{resource} not found", {"resource": resource, "id": id})


def no_such_path(path: str) -> Refusal:
    """Refuse an operation that the documentation doesn't know."""
    return not_found("Route", path)


def unauthorized(*, header_sent: bool) -> Refusal:
    """Refuse a wrong key, or a request without one. Source: /getting-started/authentication."""
    if header_sent:
        return Refusal(401)
    return Refusal(
        401, "Missing API key.", {"expectedFormat": "x-api-key: qapi_xxxxxxxxxxxxxxxxxxxx"}
    )


def too_many(limit: int, reset_at: str) -> Refusal:
    """Refuse a request that no window has room for. Source: /getting-started/rate-limits."""
    return Refusal(429, None, {"limit": limit, "remaining": 0, "resetAt": reset_at})


def duplicate(status: int, name: str) -> Refusal:
    """Refuse a second object, in one of the two ways a client must expect."""
    reason = "already exists (duplicate)"
    code = "CONFLICT" if status == 409 else None
    return Refusal(status, f"{name} {reason}", {"field": name, "reason": reason}, code=code)


def encode(envelope: Any) -> bytes:
    """Return compact UTF-8 JSON, as a JavaScript server would write it."""
    return _ENCODER.encode(envelope).encode()
