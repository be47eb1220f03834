"""The statements that tools and upkeep need; each function runs inside one transaction."""

import json
import sqlite3
import time
from collections.abc import Collection, Sequence
from typing import Any, Final

from gather_async.errors import ConfigurationError, WebhookVerificationError
from gather_async.webhooks.events import decode_event
from gather_async.webhooks.inbox import DeadLetter, EventState, InboxEntry, StoredEvent
from gather_async.webhooks.sql_queries import EVENT_COLUMNS, event_of, finish

__all__ = [
    "SCHEMA_VERSION",
    "counts",
    "dead_letters",
    "discard",
    "entries",
    "forget_handlers",
    "migrate",
    "prune",
    "prune_subjects",
    "published",
    "replay",
]

SCHEMA_VERSION: Final = 2

_EVENTS: Final = """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        default_event TEXT,
        received_at REAL NOT NULL,
        synthetic INTEGER NOT NULL,
        signed INTEGER NOT NULL,
        name TEXT NOT NULL DEFAULT '',
        receiver TEXT NOT NULL DEFAULT '',
        tenant TEXT
    )
    """
_SUBJECTS: Final = """
    CREATE TABLE subjects (
        subject TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        synthetic INTEGER NOT NULL,
        event_id INTEGER,
        seen_at REAL NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """
# An event is in waiting or in ended. Neither holds its text, which can be a megabyte, so that a
# change of state doesn't write it again.
_STATES: Final = (
    """
    CREATE TABLE waiting (
        event_id INTEGER PRIMARY KEY,
        receiver TEXT NOT NULL,
        waits_for TEXT NOT NULL DEFAULT '',
        due_at REAL NOT NULL,
        starts INTEGER NOT NULL DEFAULT 0,
        token TEXT
    )
    """,
    "CREATE INDEX waiting_due ON waiting (receiver, waits_for, due_at, event_id)",
    "CREATE INDEX waiting_claimed ON waiting (token, due_at) WHERE token IS NOT NULL",
    """
    CREATE TABLE ended (
        event_id INTEGER PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('done', 'ignored', 'dead')),
        ended_at REAL NOT NULL
    )
    """,
    "CREATE INDEX ended_by_age ON ended (state, ended_at, event_id)",
    """
    CREATE TABLE handled (
        event_id INTEGER NOT NULL,
        handler TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('done', 'failed', 'dead')),
        failures INTEGER NOT NULL DEFAULT 0,
        due_at REAL,
        ended_at REAL,
        error TEXT,
        PRIMARY KEY (event_id, handler)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX handled_dead ON handled (ended_at) WHERE state = 'dead'",
    """
    CREATE TABLE handlers (
        receiver TEXT NOT NULL,
        handler TEXT NOT NULL,
        events TEXT NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (receiver, handler)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX subjects_by_age ON subjects (seen_at)",
)
# The first version stored a task for each event and handler, decided when the event came.
_FROM_TASKS: Final = (
    "DROP INDEX events_by_age",
    "ALTER TABLE events ADD COLUMN name TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE events ADD COLUMN receiver TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE events ADD COLUMN tenant TEXT",
    "ALTER TABLE subjects ADD COLUMN event_id INTEGER",
    "ALTER TABLE subjects ADD COLUMN seen_at REAL NOT NULL DEFAULT 0",
    *_STATES,
    "UPDATE events SET name = name_of(text, default_event)",
    "UPDATE subjects SET seen_at = now()",
    """
    INSERT INTO waiting (event_id, receiver, due_at, starts)
    SELECT event_id, '', min(due_at), max(0, max(starts - failures))
    FROM tasks WHERE state = 'pending' GROUP BY event_id
    """,
    # An event without tasks had no handler when it came.
    """
    INSERT INTO ended
    SELECT e.id,
        CASE WHEN count(t.handler) = 0 THEN 'ignored'
            WHEN max(t.state = 'dead') THEN 'dead' ELSE 'done' END,
        coalesce(max(t.ended_at), e.received_at)
    FROM events e LEFT JOIN tasks t ON t.event_id = e.id
    WHERE e.id NOT IN (SELECT event_id FROM waiting) GROUP BY e.id
    """,
    """
    INSERT INTO handled
    SELECT event_id, handler, CASE state WHEN 'pending' THEN 'failed' ELSE state END,
        failures, due_at, ended_at, error
    FROM tasks WHERE state != 'pending' OR failures > 0
    """,
    "DROP TABLE tasks",
)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version, 0 being an empty one, to `SCHEMA_VERSION`.

    Raises:
        ConfigurationError: The file is an SQLite database of something else.
    """
    if version == 1:
        connection.create_function("name_of", 2, _name_of)
        connection.create_function("now", 0, time.time)
        statements: tuple[str, ...] = _FROM_TASKS
    else:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ConfigurationError(
                "The inbox's path is a database of something else: choose another file."
            )
        statements = (_EVENTS, _SUBJECTS, *_STATES)
    for statement in statements:
        connection.execute(statement)


def _name_of(text: str, default_event: str | None) -> str:
    try:
        return decode_event(text, default_event=default_event).event
    except WebhookVerificationError:
        return default_event or ""


def entries(
    connection: sqlite3.Connection,
    state: EventState | None,
    event: str | None,
    tenant: str | None,
    limit: int,
) -> Sequence[InboxEntry]:
    """Return stored events with their states, oldest first."""
    joined = {
        None: "LEFT JOIN ended o ON o.event_id = e.id",
        EventState.WAITING: "JOIN waiting o ON o.event_id = e.id",
    }.get(state, "JOIN ended o ON o.event_id = e.id AND o.state = ?4")
    found = "'waiting'" if state is EventState.WAITING else "coalesce(o.state, 'waiting')"
    rows = connection.execute(
        f"SELECT {EVENT_COLUMNS}, {found} FROM events e {joined}"  # noqa: S608 - our own words
        " WHERE (?1 IS NULL OR e.name = ?1) AND (?2 IS NULL OR e.tenant = ?2)"
        f" AND (?4 IS NULL OR {found} = ?4)"
        " ORDER BY e.id LIMIT ?3",
        (event, tenant, limit, None if state is None else state.value),
    )
    return [InboxEntry(event=event_of(row), state=EventState(row[-1])) for row in rows]


def dead_letters(
    connection: sqlite3.Connection, receiver: str | None, limit: int
) -> Sequence[DeadLetter]:
    """Return the dead letters, oldest first."""
    rows = connection.execute(
        f"SELECT {EVENT_COLUMNS}, h.handler, h.failures, h.ended_at, h.error"  # noqa: S608 - our own words
        " FROM handled h JOIN events e ON e.id = h.event_id"
        " WHERE h.state = 'dead' AND (?1 IS NULL OR e.receiver = ?1)"
        " ORDER BY h.ended_at, h.event_id LIMIT ?2",
        (receiver, limit),
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


def replay(
    connection: sqlite3.Connection, keys: Collection[str], handlers: Collection[str] | None
) -> int:
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
        chosen = (
            "state = 'dead'" if handlers is None else "handler IN (SELECT value FROM json_each(?))"
        )
        connection.execute(
            "DELETE FROM handled WHERE event_id = ?"  # noqa: S608 - our own words
            f" AND (state = 'failed' OR {chosen})",
            (row[0], *([] if handlers is None else [json.dumps(list(handlers))])),
        )
    return count


def discard(
    connection: sqlite3.Connection,
    keys: Collection[str],
    handlers: Collection[str] | None,
    now: float,
) -> int:
    """Give events, or the dead letters of some handlers, up: done, though nothing was."""
    count = 0
    names = json.dumps(None if handlers is None else list(handlers))
    for key in dict.fromkeys(keys):
        row = connection.execute(
            "SELECT e.id, coalesce(o.state, 'waiting') FROM events e"
            " LEFT JOIN ended o ON o.event_id = e.id WHERE e.key = ?",
            (key,),
        ).fetchone()
        if row is None or row[1] == EventState.DONE.value:
            continue
        changed = connection.execute(
            "UPDATE handled SET state = 'done', error = NULL WHERE event_id = ?1"
            " AND state = 'dead' AND (?2 = 'null' OR handler IN (SELECT value FROM json_each(?2)))",
            (row[0], names),
        ).rowcount
        is_over = handlers is None or (
            changed and row[1] == "dead" and not _is_dead(connection, row)
        )
        if is_over:
            finish(connection, row[0], EventState.DONE, now)
        count += bool(is_over or changed)
    return count


def _is_dead(connection: sqlite3.Connection, row: Sequence[Any]) -> bool:
    found = connection.execute(
        "SELECT 1 FROM handled WHERE event_id = ? AND state = 'dead'", (row[0],)
    )
    return found.fetchone() is not None


def counts(connection: sqlite3.Connection) -> dict[EventState, int]:
    """Return how many events are in each state."""
    (waiting,) = connection.execute("SELECT count(*) FROM waiting").fetchone()
    over = connection.execute("SELECT state, count(*) FROM ended GROUP BY state")
    return {EventState.WAITING: waiting, **{EventState(state): n for state, n in over}}


def published(
    connection: sqlite3.Connection, after: int | None, limit: int
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


def prune(connection: sqlite3.Connection, before: float, limit: int) -> int:
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


def prune_subjects(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget some old subjects whose latest event is forgotten; return how many."""
    return connection.execute(
        "DELETE FROM subjects WHERE subject IN (SELECT subject FROM subjects s"
        " WHERE seen_at <= ? AND NOT EXISTS (SELECT 1 FROM events WHERE id = s.event_id) LIMIT ?)",
        (before, limit),
    ).rowcount


def forget_handlers(connection: sqlite3.Connection, now: float) -> None:
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
