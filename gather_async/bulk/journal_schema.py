"""The tables of a journal file, and how an older file becomes a newer one."""

import json
import sqlite3
from collections.abc import Iterable
from hashlib import blake2b

from attrs import define, field, frozen

from gather_async.errors import ConfigurationError
from gather_async.models.candidate import NewCandidate

__all__ = [
    "APPLICATION_ID",
    "Instant",
    "JournalIdentity",
    "RequestHistory",
    "SCHEMA_VERSION",
    "changed_fields",
    "index_persons",
    "migrate",
    "seal",
    "values_of",
]

_HOUR = 3600.0  # the longest documented window. Source: /getting-started/rate-limits


@frozen
class Instant:
    """One moment on two clocks, since each may be wrong after a restart."""

    wall: float
    """Unix seconds; the clock may have been set since."""
    monotonic: float
    """Seconds that begin anew when the machine does."""

    def since(self, earlier: "Instant") -> float:
        """Return how many seconds have surely passed, at least.

        It is the smaller of both differences: a wall clock that was set ahead adds
        nothing, and neither does a machine that has been up for longer.
        """
        passed = min(self.wall - earlier.wall, self.monotonic - earlier.monotonic)
        return max(0.0, passed)


@define(eq=False)
class RequestHistory:
    """The journal's tables of requests and runs. Its methods run on the journal's thread."""

    _run: int
    """The run that sends them."""
    _owner: str
    """The limiter that counts what is written here; it is not restored from it."""
    ended: list[tuple[int, float | None]] = field(factory=list)
    """Numbers of requests, and when they ended; None if they never were sent.
    Filled in the loop, emptied by the thread."""

    def start(self, connection: sqlite3.Connection, at: Instant) -> int:
        """Write down a request that is about to be sent."""
        self.write_ended(connection)
        self.record_alive(connection, at)
        written = connection.execute(
            "INSERT INTO requests (at, run, owner) VALUES (?, ?, ?)",
            (at.wall, self._run, self._owner),
        )
        connection.execute("DELETE FROM requests WHERE at < ?", (at.wall - _HOUR,))
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

    def record_alive(self, connection: sqlite3.Connection, at: Instant) -> None:
        """Write down that this run may still send requests."""
        connection.execute(
            "INSERT OR REPLACE INTO runs (run, age, wall, monotonic) VALUES (?, 0, ?, ?)",
            (self._run, at.wall, at.monotonic),
        )

    def ages(self, connection: sqlite3.Connection, now: Instant) -> dict[int, float]:
        """Return for how many seconds, at least, each earlier run has sent nothing.

        Only runs whose requests have an unknown fate count. What is returned is kept, so
        that the next process goes on from there whatever happens to the clocks.
        """
        kept = {
            run: (age, Instant(wall, monotonic))
            for run, age, wall, monotonic in connection.execute("SELECT * FROM runs")
        }
        pending = connection.execute(
            "SELECT DISTINCT run FROM rows WHERE state IN ('candidate_pending', 'invite_pending')"
        ).fetchall()
        ages: dict[int, float] = {}
        for (run,) in pending:
            age, then = kept.get(run, (0.0, now))
            ages[run] = age + now.since(then)
        connection.execute("DELETE FROM runs")
        connection.executemany(
            "INSERT INTO runs (run, age, wall, monotonic) VALUES (?, ?, ?, ?)",
            [(run, age, now.wall, now.monotonic) for run, age in ages.items()],
        )
        return ages

    def claim(self, connection: sqlite3.Connection, now: float) -> list[float]:
        """Return the last hour's requests of other limiters, and make them this one's."""
        found = connection.execute(
            "SELECT at FROM requests WHERE owner != ? AND at > ? ORDER BY at",
            (self._owner, now - _HOUR),
        ).fetchall()
        connection.execute("UPDATE requests SET owner = ?", (self._owner,))
        return [at for (at,) in found]


def values_of(candidate: NewCandidate) -> tuple[str | bool | None, ...]:
    """Return the candidate's values in the order of its fields; quicker than ``astuple``."""
    return (
        candidate.first_name,
        candidate.last_name,
        candidate.email,
        candidate.phone,
        candidate.external_id,
        candidate.timezone,
        candidate.sms_opt_in,
    )


# Bytes; enough for two values of one field of one person.
_FIELD_DIGEST = 6


@frozen(kw_only=True)
class JournalIdentity:
    """Identity of a journal, and of a run of it."""

    journal_id: str
    interview_id: str
    run: int
    """From 1, one more for each time a job opens the journal."""
    keeps_candidates: bool
    """Whether rows are written out, names and addresses included, or only their digests."""
    invitation: bytes = b""
    """Digest of what people are invited with; kept beside each refusal."""
    retry_failed: bool = False
    """Whether rows that the server refused in an earlier run are opened again."""
    has_earlier_rows: bool = True
    """Whether the journal had rows when this run began."""

    def external_id(self, candidate: NewCandidate) -> str:
        """Return the external id of a row that has none of its own.

        It comes from who the person is, so that another journal finds them again, and
        shows nothing of them.
        """
        parts = (self.interview_id, candidate.email.casefold(), candidate.phone)
        text = json.dumps(parts, separators=(",", ":"))
        return f"bulk-{blake2b(text.encode(), digest_size=16, person=b'gather-invite').hexdigest()}"

    def digest(self, *parts: object) -> bytes:
        """Return a digest that differs where its parts do, keyed with the journal's id."""
        text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
        return blake2b(text.encode(), key=self.journal_id.encode(), digest_size=16).digest()

    def field_digests(self, values: Iterable[object]) -> bytes:
        """Return the digests of a row's values, one after the other, each of the same length."""
        key = self.journal_id.encode()
        return b"".join(
            blake2b(ascii(value).encode(), key=key, digest_size=_FIELD_DIGEST).digest()
            for value in values
        )

    def person_key(self, first_name: str, last_name: str, phone: str) -> bytes:
        """Return what a person keeps whose email address was corrected: name and phone."""
        return self.digest("person", first_name.casefold(), last_name.casefold(), phone)


def changed_fields(before: bytes, after: bytes, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the fields whose digests differ."""
    starts = range(0, len(after), _FIELD_DIGEST)
    return tuple(
        name
        for name, start in zip(names, starts, strict=True)
        if before[start : start + _FIELD_DIGEST] != after[start : start + _FIELD_DIGEST]
    )


def seal(connection: sqlite3.Connection) -> None:
    """Bring all changes into the main file, and mark it as one that lacks those to come.

    The main file then says ``mark``, and only the ``-wal`` file beside it that this mark
    was ``seen``: a main file that comes back alone contradicts itself, until SQLite has
    brought its changes in. Must run outside of a transaction.
    """
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'mark'")
    # A reader may keep it from being whole: the next time will do.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute(
        "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'mark') WHERE name = 'seen'"
    )


SCHEMA_VERSION = 2
# Marks a journal among SQLite files: "GAbi".
APPLICATION_ID = 0x47416269

_META = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    run INTEGER NOT NULL,
    owner TEXT NOT NULL
);
CREATE INDEX requests_by_time ON requests (at);
"""
_ROWS = """
CREATE TABLE rows (
    key INTEGER PRIMARY KEY,
    row INTEGER NOT NULL,
    line INTEGER,
    seen INTEGER NOT NULL,
    state TEXT NOT NULL,
    digest BLOB,
    email_key BLOB,
    id_key BLOB,
    person_key BLOB,
    external_id TEXT,
    own_id INTEGER NOT NULL DEFAULT 0,
    candidate TEXT,
    candidate_id TEXT,
    candidate_interview_id TEXT,
    reused INTEGER NOT NULL DEFAULT 0,
    changed TEXT NOT NULL DEFAULT '',
    invitation BLOB,
    error TEXT,
    run INTEGER NOT NULL
);
CREATE INDEX rows_by_row ON rows (row);
CREATE UNIQUE INDEX rows_by_email ON rows (email_key) WHERE email_key IS NOT NULL;
CREATE UNIQUE INDEX rows_by_id ON rows (id_key) WHERE id_key IS NOT NULL;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    age REAL NOT NULL,
    wall REAL NOT NULL,
    monotonic REAL NOT NULL
);
"""


def index_persons(connection: sqlite3.Connection) -> bool:
    """Make what rows of earlier runs are found by, name and phone; False if there are none.

    The first run looks for none. A row costs it a fifth more with this index, whose random
    keys touch another page for each, while a later run makes it at once, in order.
    """
    if connection.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is None:
        return False
    connection.execute(
        "CREATE INDEX IF NOT EXISTS rows_by_person ON rows (person_key)"
        " WHERE person_key IS NOT NULL"
    )
    return True


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
        _execute(connection, _META + _ROWS)
    elif version == 1:
        _from_version_1(connection)


def _execute(connection: sqlite3.Connection, script: str) -> None:
    # `executescript` would commit first.
    for statement in filter(str.strip, script.split(";")):
        connection.execute(statement)


def _from_version_1(connection: sqlite3.Connection) -> None:
    """Keep each row by a key of its own rather than by its number, and each field's digest."""
    connection.execute("ALTER TABLE rows RENAME TO rows_1")
    connection.execute("DROP INDEX rows_by_email")
    connection.execute("DROP INDEX rows_by_id")
    _execute(connection, _ROWS)
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    connection.execute(
        "INSERT INTO rows (key, row, seen, state, digest, email_key, id_key, external_id, own_id,"
        " candidate, candidate_id, candidate_interview_id, reused, error, run)"
        " SELECT row, row, ?, state, digest, email_key, id_key, external_id, own_id,"
        " candidate, candidate_id, candidate_interview_id, reused, error, run FROM rows_1",
        (int(meta.get("run", "0")),),
    )
    connection.execute("DROP TABLE rows_1")
    if meta:
        _fill_in(connection, meta)


def _fill_in(connection: sqlite3.Connection, meta: dict[str, str]) -> None:
    """Make, from candidates that were written out, the digests that version 1 had not."""
    identity = JournalIdentity(
        journal_id=meta["journal_id"],
        interview_id=meta["interview_id"],
        run=0,
        keeps_candidates=True,
    )
    kept = connection.execute("SELECT key, candidate FROM rows WHERE candidate IS NOT NULL")
    for key, text in kept.fetchall():
        values = json.loads(text)
        first_name, last_name, _, phone, *_ = values
        connection.execute(
            "UPDATE rows SET digest = ?, person_key = ? WHERE key = ?",
            (
                identity.field_digests(values),
                identity.person_key(first_name, last_name, phone),
                key,
            ),
        )
