"""State of FakeGather: its objects, clock, random numbers, options and quota."""

import asyncio
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import define, field, frozen

from gather_async.clock import Clock, wait
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.validators import Choice, Number

__all__ = [
    "AudioWords",
    "Closing",
    "Edition",
    "Emit",
    "FakeOptions",
    "FakeQuota",
    "HeadersDescribe",
    "Invite",
    "QuestionsList",
    "QuotaDecision",
    "Row",
    "ServerState",
    "Sleeps",
    "Table",
    "iso",
    "page_of",
    "public",
]


class Closing(Exception):  # noqa: N818 - a signal, not an error
    """The server closes, and ends all sleeps."""


class Sleeps:
    """Sleeps that `close` ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the clock.

        Raises:
            Closing: `close` was called before the time was over.
        """
        if await wait(self._clock, self._closed, seconds):
            raise Closing

    def open(self) -> None:
        """Allow sleeping again."""
        self._closed = asyncio.Event()  # the next loop needs another one

    def close(self) -> None:
        """End all sleeps."""
        self._closed.set()


Edition = Literal["A", "B"]
"""The published wording that the server follows, of two."""

HeadersDescribe = Literal["tightest", "shortest", "longest"]
"""The window that ``X-RateLimit-*`` describe; the documentation doesn't say which it is."""

QuestionsList = Literal["paged", "unpaged", "missing", "empty"]
"""What ``GET /qsi/gather/questions`` does; the documentation only shows that it exists."""


@frozen
class AudioWords:
    """The values of ``transcriptionStatus``, which are documented nowhere."""

    processing: str = "processing"
    complete: str = "complete"
    error: str = "error"


@frozen(kw_only=True)
class FakeOptions:
    """Options of `FakeGather`, which documents them."""

    edition: Edition = field(default="A", validator=Choice(("A", "B")))
    audio_seconds: float | Callable[[], float] = 0.2
    fail_audio_for: Collection[str] = ()
    audio_words: AudioWords = AudioWords()
    summary_seconds: float = 0.2
    created_status: int = field(default=201, validator=Choice((200, 201, 202)))
    questions_list: QuestionsList = field(
        default="paged", validator=Choice(("paged", "unpaged", "missing", "empty"))
    )
    questions_page_size: int = field(default=50, validator=Number(least=1, whole=True))
    page_counts: bool = True
    duplicate_status: int | None = field(default=None, validator=Choice((None, 400, 409)))
    early_results: Literal["processing", "missing"] = field(
        default="processing", validator=Choice(("processing", "missing"))
    )
    strict_users: bool = False
    headers_describe: HeadersDescribe = field(
        default="tightest", validator=Choice(("tightest", "shortest", "longest"))
    )
    count_refused: bool = False


Row = dict[str, Any]
"""One object under its wire names, plus private fields whose names start with ``_``."""

Emit = Callable[[str, Mapping[str, Any]], None]


def iso(wall: float) -> str:
    """Return Unix seconds as the documentation writes times: ISO 8601, UTC, ``Z``."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


@frozen
class Invite:
    """One invitation that went out to a person.

    Attributes:
        candidate_id: Whom.
        interview_id: To what.
        candidate_interview_id: By which link.
        delivery_types: How, such as ``("email",)``.
        sent_at: Unix seconds on the server's clock.
        is_resend: True if ``resend-invite`` sent it.
    """

    candidate_id: str
    interview_id: str
    candidate_interview_id: str
    delivery_types: tuple[str, ...]
    sent_at: float
    is_resend: bool = False


@define
class Table:
    """Objects of one kind in order of creation, found by id and by chosen keys at once."""

    keys: Sequence[tuple[str, ...]] = ()
    rows: dict[str, Row] = field(factory=dict)
    order: list[Row] = field(factory=list)
    hidden: int = 0
    _index: dict[tuple[str, ...], dict[tuple[Any, ...], list[Row]]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._index = {names: {} for names in self.keys}

    def add(self, row: Row) -> Row:
        """Keep a new object."""
        self.rows[row["id"]] = row
        self.order.append(row)
        for names, found in self._index.items():
            found.setdefault(tuple(row[name] for name in names), []).append(row)
        return row

    def get(self, id: str) -> Row | None:
        """Return an object by id."""
        return self.rows.get(id)

    def find(self, **wanted: Any) -> Sequence[Row]:
        """Return the objects with these values, oldest first; None means any."""
        wanted = {name: value for name, value in wanted.items() if value is not None}
        if not wanted:
            return self.order
        names = max(
            (names for names in self.keys if set(names) <= wanted.keys()), key=len, default=None
        )
        if names is None:
            return _matching(self.order, wanted)
        found = self._index[names].get(tuple(wanted.pop(name) for name in names), [])
        return _matching(found, wanted) if wanted else found

    def hide(self, row: Row) -> None:
        """Archive an object: lists leave it out by default."""
        self.hidden += not row.get("_archived")
        row["_archived"] = True

    def visible(self, rows: Sequence[Row], *, archived: bool) -> Sequence[Row]:
        """Return the rows that a list shows."""
        if archived or not self.hidden:
            return rows
        return [row for row in rows if not row.get("_archived")]


def _matching(rows: Iterable[Row], wanted: Mapping[str, Any]) -> Sequence[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


@define(eq=False)
class ServerState:
    """The state behind one FakeGather."""

    options: FakeOptions
    clock: Clock
    rng: random.Random
    emit: Emit
    organization_id: str = ""
    team_id: str = ""
    user_id: str = ""
    questions: Table = field(factory=Table)
    interviews: Table = field(factory=Table)
    candidates: Table = field(factory=lambda: Table([("externalId",)]))
    candidate_interviews: Table = field(
        factory=lambda: Table([("candidateId", "interviewId"), ("candidateId",), ("interviewId",)])
    )
    narrators: Table = field(factory=Table)
    message_groups: Table = field(factory=Table)
    teams: Table = field(factory=Table)
    users: Table = field(factory=Table)
    invites: list[Invite] = field(factory=list)
    invite_counts: Counter[tuple[str, str]] = field(factory=Counter)
    has_listeners: bool = False
    """True once events have a target, so that timers are worth their cost."""
    list_lag: float = 0.0
    """Seconds until a list shows a new object."""

    def new_id(self) -> str:
        """Return a random UUID; the same ones for the same seed."""
        bits = self.rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def now(self) -> str:
        """Return the present as an ISO 8601 text."""
        return iso(self.clock.wall())

    def stamps(self) -> Row:
        """Return the two times that a new object has."""
        now = self.now()
        return {"createdAt": now, "updatedAt": now, "_made": self.clock.monotonic()}

    def listed(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that are old enough for a list to show them."""
        if not self.list_lag:
            return rows
        newest = self.clock.monotonic() - self.list_lag
        return [row for row in rows if row["_made"] <= newest]

    def count_invite(self, link: Row, delivery_types: Sequence[str], *, is_resend: bool) -> None:
        """Record an invitation as sent."""
        candidate_id, interview_id = link["candidateId"], link["interviewId"]
        link["inviteSentAt"] = self.now()
        self.invite_counts[candidate_id, interview_id] += 1
        self.invites.append(
            Invite(
                candidate_id,
                interview_id,
                link["id"],
                tuple(delivery_types),
                self.clock.wall(),
                is_resend,
            )
        )


def public(row: Row) -> Row:
    """Return an object as the API shows it."""
    return {name: value for name, value in row.items() if not name.startswith("_")}


def page_of(rows: Sequence[Row], page: int, size: int) -> tuple[Sequence[Row], dict[str, int]]:
    """Return one page and the counts as the documentation names them.

    Source: /api-reference/candidate-interviews
    """
    counts = {
        "page": page,
        "limit": size,
        "total": len(rows),
        "totalPages": math.ceil(len(rows) / size),
    }
    return rows[(page - 1) * size : page * size], counts


@define
class _Window:
    """Arrivals in (now - length, now], oldest first. Source: /getting-started/rate-limits."""

    limit: int
    length: float
    arrivals: deque[float] = field(factory=deque)

    def forget(self, now: float) -> None:
        """Drop what has left the window."""
        arrivals = self.arrivals
        while arrivals and arrivals[0] <= now - self.length:
            arrivals.popleft()

    @property
    def remaining(self) -> int:
        return max(self.limit - len(self.arrivals), 0)

    def next_room(self, now: float) -> float:
        """Return seconds until a request leaves the window so that one more fits."""
        over = max(len(self.arrivals) - self.limit, 0)
        return self.arrivals[over] + self.length - now if self.arrivals else 0.0


@frozen
class QuotaDecision:
    """Decision of the windows on one request.

    Attributes:
        accepted: Whether every window had room.
        limit: Of the window that the headers describe.
        remaining: Of the same.
        reset_in: Seconds until the described window has more room.
        refused_limit: The limit of the window that refused; 0 if none did.
        refused_reset_in: Seconds until every window has room; 0.0 if all have.
    """

    accepted: bool
    limit: int
    remaining: int
    reset_in: float
    refused_limit: int = 0
    refused_reset_in: float = 0.0


class FakeQuota:
    """All windows of the one key."""

    def __init__(
        self,
        rate_limits: Sequence[RateLimit],
        *,
        headers_describe: HeadersDescribe = "tightest",
        count_refused: bool = False,
    ) -> None:
        windows = [_Window(limit.limit, float(limit.per)) for limit in rate_limits]
        self._windows = sorted(windows, key=lambda window: window.length)
        self._describe = headers_describe
        self._count_refused = count_refused

    def arrive(self, now: float) -> QuotaDecision:
        """Count a request that arrives now, if every window has room."""
        for window in self._windows:
            window.forget(now)
        full = [window for window in self._windows if not window.remaining]
        if not full or self._count_refused:
            for window in self._windows:
                window.arrivals.append(now)
        return self._decision(full, now)

    def peek(self, now: float) -> QuotaDecision:
        """Return the same without counting anything."""
        for window in self._windows:
            window.forget(now)
        return self._decision([], now)

    def _decision(self, full: Sequence[_Window], now: float) -> QuotaDecision:
        described = self._described()
        last = max(full, key=lambda window: window.next_room(now), default=None)
        return QuotaDecision(
            accepted=not full,
            limit=described.limit,
            remaining=described.remaining,
            reset_in=described.next_room(now),
            refused_limit=last.limit if last else 0,
            refused_reset_in=last.next_room(now) if last else 0.0,
        )

    def _described(self) -> _Window:
        """Return the window that the headers are about."""
        if self._describe == "shortest":
            return self._windows[0]
        if self._describe == "longest":
            return self._windows[-1]
        return min(self._windows, key=lambda window: window.remaining)
