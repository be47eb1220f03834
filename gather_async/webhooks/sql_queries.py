"""The statements that events and claims need; each function runs inside one transaction.

They are written for SQLite and PostgreSQL alike, and for one writer at a time.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from gather_async.storage import Database
from gather_async.webhooks.inbox import (
    ClaimedEvent,
    ClaimReport,
    ClaimResult,
    EventState,
    HandlerFailure,
    PutResult,
    StoredEvent,
)

__all__ = [
    "COMPLETION",
    "EVENT_COLUMNS",
    "announce",
    "claim",
    "complete",
    "contains",
    "event_of",
    "finish",
    "free_abandoned",
    "give_back",
    "is_process_gone",
    "process_token",
    "put",
    "renew",
    "report",
]

_PROC: Final = Path("/proc")
# States of a process that only waits to be reaped. Source: proc_pid_stat(5)
_ENDED: Final = frozenset("ZXx")
# No lease and no pause is longer, so what seems due later was written before the clock went back.
_HORIZON: Final = 7200.0
_NEVER: Final = 1e18
EVENT_COLUMNS: Final = (
    "e.key, e.name, e.text, e.received_at, e.receiver, e.tenant,"
    " e.synthetic, e.signed, e.default_event"
)

COMPLETION: Final = (
    "INSERT INTO {schema}handled (event_id, handler, state)"
    " SELECT id, ?, 'done' FROM {schema}events WHERE key = ?"
    " ON CONFLICT (event_id, handler) DO UPDATE SET state = 'done', error = NULL"
)
"""Records the success of a handler on the event of a key."""


def put(connection: Database, event: StoredEvent, now: float) -> PutResult:
    """Store an event, unless it is known."""
    if contains(connection, event):
        return PutResult.DUPLICATE
    connection.execute(
        "INSERT INTO events (key, name, text, received_at, receiver, tenant,"
        " synthetic, signed, default_event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            event.key,
            event.name,
            event.text,
            event.received_at,
            event.receiver,
            event.tenant,
            event.synthetic,
            event.signed,
            event.default_event,
        ),
    )
    (number,) = connection.execute("SELECT id FROM events WHERE key = ?", (event.key,)).fetchone()
    if event.subjects:
        connection.execute(
            "INSERT INTO subjects VALUES (?, ?, ?, ?, ?) ON CONFLICT (subject) DO UPDATE SET"
            " state = excluded.state, synthetic = excluded.synthetic,"
            " event_id = excluded.event_id, seen_at = excluded.seen_at",
            (event.subjects[0], event.state, event.synthetic, number, now),
        )
    # Due since ever: what arrives goes ahead of what was put off.
    connection.execute(
        "INSERT INTO waiting (event_id, receiver, due_at) VALUES (?, ?, 0)",
        (number, event.receiver),
    )
    return PutResult.NEW


def contains(connection: Database, event: StoredEvent) -> bool:
    """Return whether `put` would call it a duplicate."""
    for key in (event.key, *event.aliases):
        if connection.execute("SELECT 1 FROM events WHERE key = ?", (key,)).fetchone():
            return True
    for subject in event.subjects:
        latest = connection.execute(
            "SELECT state, synthetic FROM subjects WHERE subject = ?", (subject,)
        ).fetchone()
        # Two real events of one state are two; one that was made of the state is the same as both.
        if latest is not None and latest[0] == event.state and (latest[1] or event.synthetic):
            return True
    return False


def announce(
    connection: Database,
    receiver: str,
    handlers: Mapping[str, Collection[str]],
    former: Collection[str],
    until: float,
) -> None:
    """Record handlers; with a new one, what waits for another handler waits for any."""
    known = {
        name
        for (name,) in connection.execute(
            "SELECT handler FROM handlers WHERE receiver = ?", (receiver,)
        )
    }
    connection.executemany(
        "INSERT INTO handlers VALUES (?, ?, ?, ?) ON CONFLICT (receiver, handler) DO UPDATE SET"
        " events = excluded.events, until = excluded.until",
        [(receiver, name, json.dumps(sorted(wanted)), until) for name, wanted in handlers.items()],
    )
    if handlers.keys() - known:
        connection.execute(
            "UPDATE waiting SET waits_for = '' WHERE receiver = ? AND waits_for > ''", (receiver,)
        )
    for name in former:
        connection.execute(
            "UPDATE waiting SET receiver = ?, waits_for = '' WHERE receiver = ?", (receiver, name)
        )


def claim(
    connection: Database,
    receiver: str,
    handlers: Collection[str],
    *,
    limit: int,
    now: float,
    lease: float,
    token: str,
) -> ClaimResult:
    """Claim due events under a new token."""
    queues = [(receiver, waits_for) for waits_for in ("", *handlers)]
    # A range of the index for each queue: events that wait for others cost nothing.
    ranges = ((0.0, now), (now + _HORIZON, _NEVER))
    found = [
        row
        for first, last in ranges
        for queue in queues
        for row in connection.execute(
            "SELECT due_at, event_id, starts FROM waiting WHERE receiver = ? AND waits_for = ?"
            " AND due_at BETWEEN ? AND ? ORDER BY due_at, event_id LIMIT ?",
            (*queue, first, last, limit),
        )
    ]
    rows = sorted(found)[:limit]
    connection.executemany(
        "UPDATE waiting SET due_at = ?, starts = starts + 1, token = ? WHERE event_id = ?",
        [(now + lease, token, number) for _, number, _ in rows],
    )
    following = [
        row[0]
        for queue in queues
        for row in connection.execute(
            "SELECT due_at FROM waiting WHERE receiver = ? AND waits_for = ?"
            " ORDER BY due_at LIMIT 1",
            queue,
        )
    ]
    return ClaimResult(
        events=[_claimed(connection, number, starts, token, now) for _, number, starts in rows],
        next_due_in=max(min(following) - now, 0.0) if following else None,
        handlers=_handlers(connection, receiver, now),
    )


def renew(connection: Database, claims: Collection[ClaimedEvent], until: float) -> Collection[str]:
    """Make leases last longer; return the keys still held."""
    return {
        claimed.event.key
        for claimed in claims
        if connection.execute(
            "UPDATE waiting SET due_at = ? WHERE token = ?"
            " AND event_id = (SELECT id FROM events WHERE key = ?)",
            (until, claimed.token, claimed.event.key),
        ).rowcount
    }


def complete(connection: Database, key: str, handler: str) -> None:
    """Record that a handler succeeded, whatever was recorded of it."""
    connection.execute(COMPLETION.format(schema=""), (handler, key))


def report(connection: Database, reports: Collection[ClaimReport], now: float) -> None:
    """End claims; of those no longer held only the completions are recorded."""
    for each in reports:
        for handler in each.done:
            complete(connection, each.claimed.event.key, handler)
        held = connection.execute(
            "SELECT event_id FROM waiting WHERE token = ?"
            " AND event_id = (SELECT id FROM events WHERE key = ?)",
            (each.claimed.token, each.claimed.event.key),
        ).fetchone()
        if held is not None:
            _end_claim(connection, held[0], each, now)


def _end_claim(connection: Database, number: int, report: ClaimReport, now: float) -> None:
    for state, failures in (("failed", report.failed), ("dead", report.dead)):
        connection.executemany(
            "INSERT INTO handled VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (event_id, handler) DO UPDATE SET"
            " state = excluded.state, failures = excluded.failures, due_at = excluded.due_at,"
            " ended_at = excluded.ended_at, error = excluded.error"
            " WHERE handled.state != 'done'",
            [
                (
                    number,
                    name,
                    state,
                    each.failures,
                    now + each.retry_in,
                    now,
                    _storable(each.error),
                )
                for name, each in failures.items()
            ],
        )
    if report.due_in is not None:
        due_at = now + report.due_in if report.due_in > 0 else 0.0
        connection.execute(
            "UPDATE waiting SET due_at = ?, waits_for = ?, starts = starts - 1, token = NULL"
            " WHERE event_id = ?",
            (due_at, report.waits_for, number),
        )
        return
    is_dead = connection.execute(
        "SELECT 1 FROM handled WHERE event_id = ? AND state = 'dead'", (number,)
    ).fetchone()
    over = EventState.IGNORED if report.is_ignored else EventState.DONE
    finish(connection, number, EventState.DEAD if is_dead else over, now)


def finish(connection: Database, number: int, state: EventState, now: float) -> None:
    """Make an event wait no longer."""
    connection.execute("DELETE FROM waiting WHERE event_id = ?", (number,))
    connection.execute(
        "INSERT INTO ended VALUES (?, ?, ?) ON CONFLICT (event_id) DO UPDATE SET"
        " state = excluded.state, ended_at = excluded.ended_at",
        (number, state.value, now),
    )


def give_back(connection: Database, token: str) -> None:
    """Make events due again whose claim reached no one."""
    connection.execute(
        "UPDATE waiting SET due_at = 0, starts = starts - 1, token = NULL WHERE token = ?",
        (token,),
    )


def _handlers(connection: Database, receiver: str, now: float) -> dict[str, frozenset[str]]:
    rows = connection.execute(
        "SELECT handler, events FROM handlers WHERE receiver = ? AND until >= ?", (receiver, now)
    )
    return {name: frozenset(json.loads(events)) for name, events in rows}


def _claimed(
    connection: Database, number: int, starts: int, token: str, now: float
) -> ClaimedEvent:
    row = connection.execute(
        f"SELECT {EVENT_COLUMNS} FROM events e WHERE e.id = ?",  # noqa: S608 - our own words
        (number,),
    ).fetchone()
    handled = connection.execute(
        "SELECT handler, state, failures, due_at, error FROM handled WHERE event_id = ?", (number,)
    ).fetchall()
    return ClaimedEvent(
        event=event_of(row),
        ended=frozenset(name for name, state, *_ in handled if state != "failed"),
        failures={
            name: HandlerFailure(
                failures=failures,
                error=error or "",
                # A pause is an hour at most, unless the clock went back.
                retry_in=due_at - now if due_at < now + _HORIZON else 0.0,
            )
            for name, state, failures, due_at, error in handled
            if state == "failed"
        },
        crashes=starts,
        token=token,
    )


def event_of(row: Sequence[Any]) -> StoredEvent:
    """Return the event of a row that begins with `EVENT_COLUMNS`."""
    key, name, text, received_at, receiver, tenant, synthetic, signed, default_event = row[:9]
    return StoredEvent(
        key=key,
        name=name,
        text=text,
        received_at=received_at,
        receiver=receiver,
        tenant=tenant,
        synthetic=bool(synthetic),
        signed=bool(signed),
        default_event=default_event,
    )


def _storable(error: str) -> str:
    """Return a message that SQLite can keep: it refuses lone surrogates."""
    return error.encode("utf-8", "backslashreplace").decode()


def free_abandoned(connection: Database, now: float) -> None:
    """Make events due at once whose process died under a lease that goes on."""
    tokens = connection.execute(
        "SELECT DISTINCT token FROM waiting WHERE token IS NOT NULL AND due_at > ?", (now,)
    ).fetchall()
    for (token,) in tokens:
        if is_process_gone(token.rpartition(" ")[0]):
            connection.execute(
                "UPDATE waiting SET due_at = 0, token = NULL WHERE token = ?", (token,)
            )


def process_token() -> str:
    """Return what names this process among all of this machine; empty where that is unknown.

    A process's number is used again, so its start belongs to the token; and another
    container has other processes of the same numbers, so their namespace and the
    kernel's run belong to it, too. Only Linux has all of these.
    """
    return _token_of(os.getpid())


def is_process_gone(token: str) -> bool:
    """Return whether the process of a token is certainly gone; False if that is unknown."""
    place, _, process = token.partition(" ")
    number, _, start = process.partition(" ")
    if not number.isdigit() or place != _place():
        return False
    try:
        os.kill(int(number), 0)
        return _start_of(int(number)) != start
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is another user's, or hidden
        return False


@lru_cache(maxsize=1)
def _token_of(number: int) -> str:
    try:
        return f"{_place()} {number} {_start_of(number)}" if _place() else ""
    except OSError:
        return ""


@lru_cache(maxsize=1)
def _place() -> str:
    """Return the kernel's run and the namespace of the processes; empty if unknown."""
    try:
        run = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{run}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(number: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if it only waits to be reaped."""
    # The command's name comes second, in brackets, and may hold spaces and brackets.
    fields = (_PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    return None if fields[0] in _ENDED else fields[19]
