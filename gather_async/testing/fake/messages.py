"""Requests and responses of FakeGather: the log, the documented envelopes, the refusals.

Source: /getting-started/overview (success), /guides/error-handling (errors)
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from attrs import evolve, field, frozen

from gather_async.testing.fake.state import ServerState

__all__ = [
    "FakeRequest",
    "ReceivedRequest",
    "ReceivedRequests",
    "Refusal",
    "Reply",
    "duplicate",
    "encode",
    "invalid",
    "no_such_path",
    "not_found",
    "seen_headers",
    "too_many",
    "unauthorized",
]

_SECRET = "x-api-key"  # noqa: S105 - the name of a header


@frozen(kw_only=True)
class ReceivedRequest:
    """One request as it arrived, and how it was answered.

    Its ``repr`` shows neither query, body nor headers: they may hold personal data.

    Attributes:
        method: Such as ``GET``.
        path: Raw, as sent, without the query.
        query: Each parameter's values, decoded.
        json: The decoded body; None if there was none, or it was no JSON.
        headers: Names in lower case; the key's value is left out.
        at: Unix seconds of the arrival, on the server's clock.
        status: The status answered; None if it isn't answered, or never was.
        fault: What went wrong on demand; None if nothing did.
        was_processed: Whether the operation was carried out with success.
    """

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = field(repr=False)
    json: Any = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    at: float
    status: int | None = None
    fault: str | None = None
    was_processed: bool = False


class ReceivedRequests:
    """Requests in the order of arrival."""

    def __init__(self) -> None:
        self.records: list[ReceivedRequest] = []
        self._forgotten = 0
        self._waiters: set[Callable[[], None]] = set()

    def arrive(self, record: ReceivedRequest) -> int:
        """Keep a request; returns its place among all there ever were."""
        self.records.append(record)
        for check in tuple(self._waiters):
            check()
        return self._forgotten + len(self.records) - 1

    def clear(self) -> None:
        """Forget all requests; those in progress are not noted any more."""
        self._forgotten += len(self.records)
        self.records.clear()

    def finish(
        self, place: int, *, status: int | None, fault: str | None, was_processed: bool
    ) -> None:
        """Note how a request was answered."""
        index = place - self._forgotten
        if index >= 0:
            self.records[index] = evolve(
                self.records[index], status=status, fault=fault, was_processed=was_processed
            )

    def count(self, method: str | None, path: str | None) -> int:
        """Return how many requests fit."""
        if method is None and path is None:
            return len(self.records)
        return sum(_fits(record, method, path) for record in self.records)

    async def wait_for(self, count: int, method: str | None, path: str | None) -> None:
        """Return once that many requests that fit have arrived since the log began."""
        enough = asyncio.get_running_loop().create_future()

        def check() -> None:
            if not enough.done() and self.count(method, path) >= count:
                enough.set_result(None)

        check()
        self._waiters.add(check)
        try:
            await enough
        finally:
            self._waiters.discard(check)


def seen_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as the log keeps them."""
    return {name.lower(): value for name, value in headers.items() if name.lower() != _SECRET}


def _fits(record: ReceivedRequest, method: str | None, path: str | None) -> bool:
    if method is not None and record.method != method.upper():
        return False
    return path is None or fnmatchcase(record.path, path)


@frozen
class FakeRequest:
    """A request that passed the key and the quota.

    Attributes:
        world: The server's state.
        path: As it was sent.
        id: From the path, decoded; empty where the path has none.
        query: Each parameter and its values.
        body: Decoded JSON; None without a body.
    """

    world: ServerState
    path: str
    id: str
    query: Mapping[str, Sequence[str]]
    body: Any

    @property
    def created(self) -> int:
        """The status of a successful creation, which is documented nowhere."""
        return self.world.options.created_status

    @property
    def edition(self) -> str:
        """``A`` or ``B``."""
        return self.world.options.edition


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
        self.code: str = code or known_code
        self.message: str = message or known_message
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
