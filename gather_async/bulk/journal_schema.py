"""The tables of a journal file, and how an older file becomes a newer one."""

import json
import sqlite3
from hashlib import blake2b

from attrs import define, field, frozen

from gather_async.errors import ConfigurationError

__all__ = ["APPLICATION_ID", "JournalIdentity", "RequestHistory", "SCHEMA_VERSION", "migrate"]

_HOUR = 3600.0  # the longest documented window. Source: /getting-started/rate-limits


@define(eq=False)
class RequestHistory:
    """The journal's table of requests. Its methods run on the journal's thread."""

    _run: int
    """The run that sends them."""
    _owner: str
    """The limiter that counts what is written here; it needs no telling."""
    ended: list[tuple[int, float | None]] = field(factory=list)
    """Numbers of requests, and when they ended; None if they never were sent.
    Filled in the loop, emptied by the thread."""

    def start(self, connection: sqlite3.Connection, at: float) -> int:
        """Write down a request that is about to be sent, in Unix seconds."""
        self.write_ended(connection)
        written = connection.execute(
            "INSERT INTO requests (at, run, owner) VALUES (?, ?, ?)", (at, self._run, self._owner)
        )
        connection.execute("DELETE FROM requests WHERE at < ?", (at - _HOUR,))
        return int(written.lastrowid or 0)

    def write_ended(self, connection: sqlite3.Connection) -> None:
        """Correct the times of requests that have ended."""
        # An error below undoes no more than a latency's worth of precision.
        done, self.ended = self.ended, []
        for number, at in done:
            if at is None:
                connection.execute("DELETE FROM requests WHERE number = ?", (number,))
            else:
                connection.execute("UPDATE requests SET at = ? WHERE number = ?", (at, number))

    def last(self, connection: sqlite3.Connection) -> dict[int, float]:
        """Return when each run of the last hour sent its last request, in Unix seconds."""
        return dict(connection.execute("SELECT run, max(at) FROM requests GROUP BY run"))

    def adopt(self, connection: sqlite3.Connection, now: float) -> list[float]:
        """Return the last hour's requests of other limiters, and make them this one's."""
        found = connection.execute(
            "SELECT at FROM requests WHERE owner != ? AND at > ? ORDER BY at",
            (self._owner, now - _HOUR),
        ).fetchall()
        connection.execute("UPDATE requests SET owner = ?", (self._owner,))
        return [at for (at,) in found]


@frozen(kw_only=True)
class JournalIdentity:
    """Which journal this is, and which run of it."""

    journal_id: str
    run: int
    """From 1, one more for each time a job opens the journal."""
    keeps_candidates: bool
    """Whether rows are written out, names and addresses included, or only their digests."""
    retry_failed: bool = False
    """Whether rows that an earlier run saw refused are opened again."""

    def external_id(self, row: int) -> str:
        """Return the external id of a row that has none of its own."""
        return f"{self.journal_id}-{row}"

    def digest(self, *parts: object) -> bytes:
        """Return what tells rows and addresses apart without being them."""
        text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
        return blake2b(text.encode(), key=self.journal_id.encode(), digest_size=16).digest()


SCHEMA_VERSION = 2
# Tells a journal from every other SQLite file: "GAbi".
APPLICATION_ID = 0x47416269

_TABLES = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE rows (
    row INTEGER PRIMARY KEY,
    line INTEGER,
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
    elif version == 1:
        connection.execute("ALTER TABLE rows ADD COLUMN line INTEGER")
