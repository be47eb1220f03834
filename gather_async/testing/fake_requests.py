"""The log of what arrived at FakeGather."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from attrs import evolve, field, frozen

__all__ = ["ReceivedRequest", "RequestLog", "seen_headers"]

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


class RequestLog:
    """Requests in the order of arrival."""

    def __init__(self) -> None:
        self.records: list[ReceivedRequest] = []
        self._forgotten = 0
        self._waiters: set[Callable[[], None]] = set()

    def arrive(self, record: ReceivedRequest) -> int:
        """Keep a request; returns its place among all there ever were."""
        self.records.append(record)
        for look in tuple(self._waiters):
            look()
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

        def look() -> None:
            if not enough.done() and self.count(method, path) >= count:
                enough.set_result(None)

        look()
        self._waiters.add(look)
        try:
            await enough
        finally:
            self._waiters.discard(look)


def seen_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as the log keeps them."""
    return {name.lower(): value for name, value in headers.items() if name.lower() != _SECRET}


def _fits(record: ReceivedRequest, method: str | None, path: str | None) -> bool:
    if method is not None and record.method != method.upper():
        return False
    return path is None or fnmatchcase(record.path, path)
