"""The tables of an inbox file."""

import sqlite3
from typing import Final

from gather_async.errors import ConfigurationError

__all__ = ["SCHEMA_VERSION", "migrate"]

SCHEMA_VERSION: Final = 1

# A task is pending, done or dead; a claimed one is pending and due when its lease ends.
# subjects outlive events: a sweep of the server must not tell again what was told last year.
_TABLES: Final = (
    """
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        text TEXT NOT NULL,
        default_event TEXT,
        received_at REAL NOT NULL,
        synthetic INTEGER NOT NULL,
        signed INTEGER NOT NULL
    )
    """,
    "CREATE INDEX events_by_age ON events (received_at)",
    """
    CREATE TABLE tasks (
        event_id INTEGER NOT NULL REFERENCES events (id) ON DELETE CASCADE,
        handler TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
        due_at REAL NOT NULL,
        starts INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        token TEXT,
        ended_at REAL,
        error TEXT,
        PRIMARY KEY (event_id, handler)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX tasks_due ON tasks (due_at) WHERE state = 'pending'",
    "CREATE INDEX tasks_dead ON tasks (ended_at) WHERE state = 'dead'",
    """
    CREATE TABLE subjects (
        subject TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        synthetic INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version, 0 being an empty one, to `SCHEMA_VERSION`.

    Raises:
        ConfigurationError: The file is an SQLite database of something else.
    """
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ConfigurationError(
                "The inbox's path is a database of something else: choose another file."
            )
        for statement in _TABLES:
            connection.execute(statement)
