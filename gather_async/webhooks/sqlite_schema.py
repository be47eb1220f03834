"""The tables of an inbox file, and how a file of the first version becomes one of today's."""

import sqlite3
import time
from typing import Final

from gather_async.errors import ConfigurationError, WebhookVerificationError
from gather_async.webhooks.events import decode_event

__all__ = ["SCHEMA_VERSION", "migrate"]

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
