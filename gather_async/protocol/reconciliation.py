"""Proof by look-ups of a write of unknown fate: carried out, absent, or neither."""

from collections.abc import Container, Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Any

from attrs import define, field, frozen

from gather_async.protocol.codec import MismatchError, decode
from gather_async.protocol.pagination import read_counts
from gather_async.protocol.requests import Lookup
from gather_async.protocol.responses import find_list, find_object

__all__ = ["LookupResult", "Reconciliation", "Verdict", "began_at"]

_ROUNDING = 2.0
"""Seconds by which an object may seem older than the write that made it: dates may come
in whole seconds, and the server's clock is read some latency late."""
_SKEW = 60.0
"""Seconds beyond which an earlier date proves that another write made the object. Between
the two it proves nothing: the server's database may have a clock of its own."""
_SURELY_WHOLE = 9
"""Items that no page size cuts a list at: the smallest documented default is 10."""
_MOST_READS = 3
"""Objects of one list that are read singly; more would cost more than they can prove."""
_DATES = ("createdAt", "inviteSentAt", "updatedAt")
"""None of them can lie before an object's creation."""


class Verdict(Enum):
    """The proof that a look-up gives."""

    FOUND = auto()
    ABSENT = auto()
    UNPROVEN = auto()
    """Neither: a later look-up may."""
    UNREAD = auto()
    """The list leaves out what would prove it: single reads may show it."""


@frozen
class LookupResult:
    """Result of one look-up."""

    verdict: Verdict
    item: Mapping[str, Any] | None = field(default=None, repr=False)
    """What the write made, if it was found."""
    ids: tuple[str, ...] = ()
    """What to read singly, if that may decide."""


class _Is(Enum):
    """Origin of a listed object."""

    OURS = auto()
    OTHERS = auto()
    UNKNOWN = auto()
    UNREAD = auto()


@define(eq=False, repr=False)
class Reconciliation:
    """Evidence on one lost write, gathered from one look-up to the next.

    Proof that an object is what the write made is, by the kind of look-up: that it shows
    the very values that were sent (`Lookup.sent`); a creation date after the attempt, by
    the server's clock; or that it was not there before.
    """

    lookup: Lookup
    claimed: Container[str] = ()
    """Ids that this client knows to be other writes' results."""
    _others: set[str] = field(factory=set, init=False)
    _listed: frozenset[str] | None = field(default=None, init=False)
    """Ids of the last whole list, which was read after the attempt."""
    _read: dict[str, Mapping[str, Any]] = field(factory=dict, init=False)
    """What single reads showed."""

    def record_list(self, payload: Any, *, began: float | None) -> LookupResult:
        """Return what a list response proves.

        Args:
            payload: The response's JSON.
            began: When the write was first attempted, by the server's clock, in Unix
                seconds; None if unknown.
        """
        items, _ = find_list(payload, self.lookup.plural, null_is_empty=False)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            return LookupResult(Verdict.UNPROVEN)
        return self._result(items, began, is_whole=not _has_more(payload, len(items)))

    def record_reads(
        self, listed: Any, reads: Mapping[str, Any], *, began: float | None
    ) -> LookupResult:
        """Return what a list proves together with single reads of its objects.

        Args:
            listed: The list response's JSON.
            reads: The JSON of each single read, by the id that was asked for.
            began: As for `record_list`.
        """
        for asked, payload in reads.items():
            item, _ = find_object(payload, self.lookup.singular, self.lookup.model)
            if isinstance(item, dict) and item.get("id") == asked:
                self._read[asked] = item
        items, _ = find_list(listed, self.lookup.plural)
        return self._result(items, began, is_whole=not _has_more(listed, len(items)))

    def _result(
        self, items: list[Mapping[str, Any]], began: float | None, *, is_whole: bool
    ) -> LookupResult:
        merged = [{**item, **self._read.get(_id(item), {})} for item in items]
        judged = [(self._judge(item, began), item) for item in merged]
        ours = [item for whose, item in judged if whose is _Is.OURS]
        if ours:
            return LookupResult(Verdict.FOUND, max(ours, key=_created))
        self._others.update(_id(item) for whose, item in judged if whose is _Is.OTHERS)
        self._others.discard("")
        unread = tuple(_id(item) for whose, item in judged if whose is _Is.UNREAD)
        if unread and len(unread) <= _MOST_READS and is_whole:
            return LookupResult(Verdict.UNREAD, ids=unread)
        if any(self.lookup.contradicts(item) for item in merged) or not is_whole:
            # The filter was ignored, or there is more than this page: a list that may shift
            # while it is read proves no absence.
            return LookupResult(Verdict.UNPROVEN)
        self._listed = frozenset(map(_id, merged))
        if any(whose is not _Is.OTHERS for whose, _ in judged):
            return LookupResult(Verdict.UNPROVEN)
        return LookupResult(Verdict.ABSENT)

    def _judge(self, item: Mapping[str, Any], began: float | None) -> _Is:
        """Return which write made an object."""
        lookup = self.lookup
        if _id(item) in self._others or lookup.contradicts(item):
            return _Is.OTHERS
        if not _id(item):  # it can't be recognised in another look-up, nor be returned
            return _Is.UNKNOWN
        judge = self._judge_values if lookup.sent else self._judge_time
        whose = judge(item, began) if lookup.shows_filter(item) else _Is.UNKNOWN
        return _Is.UNREAD if whose is _Is.UNKNOWN and self._may_read(item) else whose

    def _may_read(self, item: Mapping[str, Any]) -> bool:
        """Return whether a single read may show more than the list does."""
        if _id(item) in self._read:
            return False
        is_dated = self.lookup.shows_filter(item) and item.get("createdAt") is not None
        return bool(self.lookup.sent) or not is_dated

    def _judge_values(self, item: Mapping[str, Any], began: float | None) -> _Is:
        """Judge an object by what was sent, and by its date where that says too little."""
        sent = self.lookup.sent
        email = item.get("email")
        if email is not None and not _same(email, sent.get("email")):
            return _Is.OTHERS  # another person under the same reference
        shown = {name: value for name, value in sent.items() if item.get(name) is not None}
        if email is not None and all(_same(item[name], value) for name, value in shown.items()):
            return _Is.OURS
        if _id(item) not in self._read:
            return _Is.UNKNOWN
        # The server may write a value in another way than it was sent, such as a name.
        return self._judge_date(item, began)

    def _judge_time(self, item: Mapping[str, Any], began: float | None) -> _Is:
        """Judge an object that others may resemble: only time, or absence before, decides."""
        own_id = _id(item)
        if own_id in self.claimed:
            return _Is.OTHERS
        if self.lookup.before is not None:
            return _Is.OTHERS if own_id in self.lookup.before else _Is.OURS
        whose = self._judge_date(item, began)
        has_appeared = self._listed is not None and own_id not in self._listed
        if whose is _Is.UNKNOWN and has_appeared and not self._may_read(item):
            return _Is.OURS
        return whose

    def _judge_date(self, item: Mapping[str, Any], began: float | None) -> _Is:
        created = _unix(item.get("createdAt"))
        if began is None:
            return _Is.UNKNOWN
        if created is not None and created >= began - _ROUNDING:
            return _Is.OURS
        dates = [date for name in _DATES if (date := _unix(item.get(name))) is not None]
        return _Is.OTHERS if min(dates, default=began) < began - _SKEW else _Is.UNKNOWN


def _id(item: Mapping[str, Any]) -> str:
    value = item.get("id")
    return value if isinstance(value, str) else ""


def _same(shown: Any, sent: Any) -> bool:
    """Return whether a value is the one that was sent, give or take case and spaces around it."""
    if isinstance(shown, str) and isinstance(sent, str):
        return shown.strip().casefold() == sent.strip().casefold()
    return type(shown) is type(sent) and bool(shown == sent)


def _has_more(payload: Any, listed: int) -> bool:
    """Return whether the list may have more objects than this response."""
    counts = read_counts(payload)
    if counts.total is None and counts.total_pages is None:
        return listed > _SURELY_WHOLE
    return (counts.total or 0) > listed or (counts.total_pages or 0) > 1


def began_at(payload: Any, header_time: float | None, elapsed: float) -> float | None:
    """Return when a write began by the server's clock, in Unix seconds; None if unknown.

    Args:
        payload: A later response's JSON; its ``meta.timestamp`` goes before the header.
        header_time: That response's ``Date``, in Unix seconds.
        elapsed: Seconds from the write's beginning to that response.
    """
    meta = payload.get("meta") if isinstance(payload, dict) else None
    stamp = _unix(meta.get("timestamp")) if isinstance(meta, dict) else None
    now = header_time if stamp is None else stamp
    return None if now is None else now - elapsed


def _created(item: Mapping[str, Any]) -> float:
    return _unix(item.get("createdAt")) or 0.0


def _unix(value: Any) -> float | None:
    try:
        return decode(value, datetime).timestamp()
    except MismatchError:
        return None
