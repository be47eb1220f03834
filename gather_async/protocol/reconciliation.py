"""What a list says of a write whose answer was lost."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Any

from attrs import field, frozen

from gather_async.protocol.codec import MismatchError, decode
from gather_async.protocol.pagination import read_counts
from gather_async.protocol.requests import Lookup
from gather_async.protocol.responses import find_list

__all__ = ["LookupResult", "Verdict", "evaluate"]

_MARGIN = 60.0
"""Seconds by which an object may seem older than the write that made it: clocks
are read at different moments, and a double click is no second invite."""
_SURELY_WHOLE = 9
"""Items that no page size cuts a list at: the smallest documented default is 10."""


class Verdict(Enum):
    """What one look proves."""

    FOUND = auto()
    ABSENT = auto()
    UNPROVEN = auto()
    """The list doesn't show what was asked for, so absence from it means nothing."""


@frozen
class LookupResult:
    """What one look saw."""

    verdict: Verdict
    item: Mapping[str, Any] | None = field(default=None, repr=False)


def evaluate(
    lookup: Lookup, payload: Any, *, server_now: float | None, elapsed: float
) -> LookupResult:
    """Return what a list answer says of the lost write.

    Args:
        lookup: What was looked for.
        payload: The answer's JSON.
        server_now: The server's wall time when it answered, in Unix seconds, for
            answers whose ``meta.timestamp`` is absent; None if unknown.
        elapsed: Seconds since the write began.
    """
    items, _ = find_list(payload, lookup.plural)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return LookupResult(Verdict.UNPROVEN)
    matching = [item for item in items if lookup.matches(item)]
    recent = matching
    if lookup.recent_only and matching:
        now = _unix(_meta(payload).get("timestamp")) or server_now
        if now is None:
            # An older one can't be told from the one that the write made.
            return LookupResult(Verdict.UNPROVEN)
        earliest = now - elapsed - _MARGIN
        recent = [item for item in matching if _created(item, now) >= earliest]
    if recent:
        return LookupResult(Verdict.FOUND, max(recent, key=lambda item: _created(item, 0.0)))
    if len(matching) < len(items) or _has_more(payload, len(items)):
        # The filter was ignored, or there is more than this page.
        return LookupResult(Verdict.UNPROVEN)
    return LookupResult(Verdict.ABSENT)


def _has_more(payload: Any, listed: int) -> bool:
    counts = read_counts(payload)
    if counts.total is None and counts.total_pages is None:
        return listed > _SURELY_WHOLE
    return (counts.total or 0) > listed or (counts.total_pages or 0) > 1


def _meta(payload: Any) -> Mapping[str, Any]:
    meta = payload.get("meta") if isinstance(payload, dict) else None
    return meta if isinstance(meta, dict) else {}


def _created(item: Mapping[str, Any], otherwise: float) -> float:
    created = _unix(item.get("createdAt"))
    return otherwise if created is None else created


def _unix(value: Any) -> float | None:
    try:
        return decode(value, datetime).timestamp()
    except MismatchError:
        return None
