"""The tables of a journal file, and how an older file becomes a newer one."""

import sqlite3

from gather_async.errors import ConfigurationError

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "migrate"]

SCHEMA_VERSION = 1
# Tells a journal from every other SQLite file: "GAbi".
APPLICATION_ID = 0x47416269

_TABLES = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE rows (
    row INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    digest BLOB,
    email_key BLOB,
    id_key BLOB,
    external_id TEXT,
    own_id INTEGER NOT NULL DEFAULT 0,
    candidate TEXT,
    candidate_id TEXT,
    candidate_interview_id TEXT,
    reused INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    run INTEGER NOT NULL
);
CREATE UNIQUE INDEX rows_by_email ON rows (email_key) WHERE email_key IS NOT NULL;
CREATE UNIQUE INDEX rows_by_id ON rows (id_key) WHERE id_key IS NOT NULL;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    run INTEGER NOT NULL,
    owner TEXT NOT NULL
);
CREATE INDEX requests_by_time ON requests (at);
"""


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file of an older version, 0 being an empty one, to `SCHEMA_VERSION`.

    Raises:
        ConfigurationError: The file is an SQLite database of something else.
    """
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ConfigurationError(
                "The journal's path is a database of something else: choose another file."
            )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement in filter(str.strip, _TABLES.split(";")):
            connection.execute(statement)
