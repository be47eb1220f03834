"""The statements that tools and upkeep need; each function runs inside one transaction."""

from collections.abc import Collection, Sequence
from typing import Any

from gather_async.storage import Database
from gather_async.webhooks.inbox import DeadLetter, EventState, InboxEntry, StoredEvent
from gather_async.webhooks.sql_queries import EVENT_COLUMNS, event_of, finish

__all__ = [
    "counts",
    "dead_letters",
    "discard",
    "entries",
    "forget_handlers",
    "prune",
    "prune_subjects",
    "published",
    "replay",
]


def entries(
    connection: Database,
    state: EventState | None,
    event: str | None,
    tenant: str | None,
    limit: int,
) -> Sequence[InboxEntry]:
    """Return stored events with their states, oldest first."""
    conditions: list[tuple[str, Any]] = [("e.name = ?", event), ("e.tenant = ?", tenant)]
    # From the smaller table: few events are dead or wait, most are done.
    join = "LEFT JOIN ended o ON o.event_id = e.id"
    if state is EventState.WAITING:
        join = "JOIN waiting w ON w.event_id = e.id LEFT JOIN ended o ON o.event_id = e.id"
    elif state is not None:
        join = "JOIN ended o ON o.event_id = e.id"
        conditions.append(("o.state = ?", state.value))
    where, values = _where(conditions)
    rows = connection.execute(
        f"SELECT {EVENT_COLUMNS}, coalesce(o.state, 'waiting') FROM events e {join}"  # noqa: S608 - our own words
        f" WHERE {where} ORDER BY e.id LIMIT ?",
        (*values, limit),
    )
    return [InboxEntry(event=event_of(row), state=EventState(row[-1])) for row in rows]


def dead_letters(connection: Database, receiver: str | None, limit: int) -> Sequence[DeadLetter]:
    """Return the dead letters, oldest first."""
    where, values = _where([("e.receiver = ?", receiver)])
    rows = connection.execute(
        f"SELECT {EVENT_COLUMNS}, h.handler, h.failures, h.ended_at, h.error"  # noqa: S608 - our own words
        " FROM handled h JOIN events e ON e.id = h.event_id"
        f" WHERE h.state = 'dead' AND {where} ORDER BY h.ended_at, h.event_id LIMIT ?",
        (*values, limit),
    )
    return [
        DeadLetter(
            event=event_of(row).decode(),
            handler=row[-4],
            key=row[0],
            receiver=row[4],
            failures=row[-3],
            dead_at=row[-2],
            error=row[-1] or "",
        )
        for row in rows
    ]


def _where(conditions: Sequence[tuple[str, Any]]) -> tuple[str, Sequence[Any]]:
    """Return a condition of those whose value is given, and the values."""
    given = [(condition, value) for condition, value in conditions if value is not None]
    return (
        " AND ".join(condition for condition, _ in given) or "1 = 1",
        [value for _, value in given],
    )


def replay(connection: Database, keys: Collection[str], handlers: Collection[str] | None) -> int:
    """Make events that are over due again."""
    count = 0
    for key in dict.fromkeys(keys):
        row = connection.execute(
            "SELECT e.id, e.receiver FROM events e JOIN ended o ON o.event_id = e.id"
            " WHERE e.key = ?",
            (key,),
        ).fetchone()
        if row is None:
            continue
        count += 1
        connection.execute("DELETE FROM ended WHERE event_id = ?", row[:1])
        connection.execute("INSERT INTO waiting (event_id, receiver, due_at) VALUES (?, ?, 0)", row)
        chosen = "state = 'dead'" if handlers is None else f"handler IN ({_marks(handlers)})"
        connection.execute(
            "DELETE FROM handled WHERE event_id = ?"  # noqa: S608 - our own words
            f" AND (state = 'failed' OR {chosen})",
            (row[0], *(handlers or ())),
        )
    return count


def discard(
    connection: Database,
    keys: Collection[str],
    handlers: Collection[str] | None,
    now: float,
) -> int:
    """Give events, or the dead letters of some handlers, up: done, though nothing was."""
    count = 0
    chosen = "" if handlers is None else f" AND handler IN ({_marks(handlers)})"
    for key in dict.fromkeys(keys):
        row = connection.execute(
            "SELECT e.id, coalesce(o.state, 'waiting') FROM events e"
            " LEFT JOIN ended o ON o.event_id = e.id WHERE e.key = ?",
            (key,),
        ).fetchone()
        if row is None or row[1] == EventState.DONE.value:
            continue
        changed = connection.execute(
            "UPDATE handled SET state = 'done', error = NULL WHERE event_id = ?"  # noqa: S608 - our own words
            f" AND state = 'dead'{chosen}",
            (row[0], *(handlers or ())),
        ).rowcount
        is_over = handlers is None or (
            changed and row[1] == "dead" and not _is_dead(connection, row)
        )
        if is_over:
            finish(connection, row[0], EventState.DONE, now)
        count += bool(is_over or changed)
    return count


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values)) or "NULL"


def _is_dead(connection: Database, row: Sequence[Any]) -> bool:
    found = connection.execute(
        "SELECT 1 FROM handled WHERE event_id = ? AND state = 'dead'", (row[0],)
    )
    return found.fetchone() is not None


def counts(connection: Database) -> dict[EventState, int]:
    """Return how many events are in each state."""
    (waiting,) = connection.execute("SELECT count(*) FROM waiting").fetchone()
    over = connection.execute("SELECT state, count(*) FROM ended GROUP BY state")
    return {EventState.WAITING: waiting, **{EventState(state): n for state, n in over}}


def published(
    connection: Database, after: int | None, limit: int
) -> tuple[int, Sequence[StoredEvent]]:
    """Return the events put after a position, and the position after them."""
    if after is None:
        (latest,) = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
        return latest, []
    rows = connection.execute(
        f"SELECT {EVENT_COLUMNS}, e.id FROM events e WHERE e.id > ?"  # noqa: S608 - our own words
        " ORDER BY e.id LIMIT ?",
        (after, limit),
    ).fetchall()
    return (rows[-1][-1] if rows else after), [event_of(row) for row in rows]


def prune(connection: Database, before: float, limit: int) -> int:
    """Forget some events that were done or ignored before then; return how many."""
    numbers = [
        number
        for (number,) in connection.execute(
            "SELECT event_id FROM ended WHERE state IN ('done', 'ignored') AND ended_at <= ?"
            # The newest number stays, so that no later event gets it: positions are numbers.
            " AND event_id < (SELECT max(id) FROM events) LIMIT ?",
            (before, limit),
        )
    ]
    for table, column in (("ended", "event_id"), ("handled", "event_id"), ("events", "id")):
        connection.executemany(
            f"DELETE FROM {table} WHERE {column} = ?",  # noqa: S608 - our own words
            [(number,) for number in numbers],
        )
    return len(numbers)


def prune_subjects(connection: Database, before: float, limit: int) -> int:
    """Forget some old subjects whose latest event is forgotten; return how many."""
    return connection.execute(
        "DELETE FROM subjects WHERE subject IN (SELECT subject FROM subjects s"
        " WHERE seen_at <= ? AND NOT EXISTS (SELECT 1 FROM events WHERE id = s.event_id) LIMIT ?)",
        (before, limit),
    ).rowcount


def forget_handlers(connection: Database, now: float) -> None:
    """Forget handlers that no process announced for long; what waits for them waits for any."""
    gone = connection.execute("SELECT receiver, handler FROM handlers WHERE until < ?", (now,))
    for receiver, handler in gone.fetchall():
        connection.execute(
            "DELETE FROM handlers WHERE receiver = ? AND handler = ?", (receiver, handler)
        )
        connection.execute(
            "UPDATE waiting SET waits_for = '' WHERE receiver = ? AND waits_for = ?",
            (receiver, handler),
        )
