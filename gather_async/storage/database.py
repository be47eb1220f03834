"""The thread that owns the connection and groups the commits."""

import asyncio
import contextlib
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from attrs import define, field, frozen

from gather_async.errors import ClientClosedError, ConfigurationError

__all__ = [
    "Connector",
    "Cursor",
    "Database",
    "DatabaseThread",
    "Job",
    "Migration",
    "SQLiteConnector",
    "Work",
]

Migration = Callable[[sqlite3.Connection, int], None]


class Cursor(Protocol):
    """The rows of a statement, as in the Python Database API (PEP 249)."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row; None: there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows that are left."""
        ...


class Database(Protocol):
    """A connection to a database, as `sqlite3.Connection` is one."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Carry out a statement."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any:
        """Carry out a statement with each of the parameters."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Connector(Protocol):
    """Maker of connections to a database."""

    @property
    def thread_name(self) -> str:
        """The name of the thread that owns the connection."""
        ...

    @property
    def begin(self) -> str:
        """The statement that begins a transaction which writes."""
        ...

    @property
    def lost(self) -> type[Exception]:
        """The error of works whose transaction was lost by another work, or by the server."""
        ...

    def connect(self) -> Any:
        """Return a connection to a database of the right version."""
        ...

    def is_broken(self, connection: Any) -> bool:
        """Return whether a connection is of no use any more."""
        ...


# What no later attempt will cure; all else, such as a full disk, is passed on as it is.
_LASTING: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


@frozen
class SQLiteConnector:
    """Maker of connections to an SQLite file."""

    path: str
    schema_version: int
    migrate: Migration
    synchronous: str
    busy_timeout: float
    is_shrinkable: bool = False
    on_open: Callable[[], object] | None = None
    """Called on the thread when the file is open, and nothing of it was read yet."""
    thread_name: str = "gather-async-sqlite"
    begin: str = "BEGIN IMMEDIATE"
    lost: type[Exception] = sqlite3.OperationalError

    def is_broken(self, connection: sqlite3.Connection) -> bool:
        """Return False: a file goes on."""
        return False

    def connect(self) -> sqlite3.Connection:
        """Return a connection to a database of the right version."""
        try:
            return self._prepared(self._bare())
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", -1) & 0xFF not in _LASTING:
                raise
            raise ConfigurationError(
                f"The database file can't be opened ({error}): check that its folder exists, "
                "that it may be written, and that it is an SQLite file."
            ) from error

    def _bare(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path,
            timeout=self.busy_timeout,
            isolation_level=None,
            check_same_thread=True,
            factory=_Connection,
        )

    def _prepared(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        try:
            if self.on_open is not None:
                self.on_open()
            if self.is_shrinkable:  # only before anything is written
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._enter_wal(connection)
            if not self.path:  # what undoes a transaction needs no more to last than the file
                connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN IMMEDIATE")
            self._migrate(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to WAL; SQLite does not wait here when another process does the same."""
        give_up = time.monotonic() + self.busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() >= give_up:
                    raise
            time.sleep(0.01)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > self.schema_version:
            raise ConfigurationError(
                f"The database file has version {version}, this program knows "
                f"{self.schema_version}: install the newer gather-async, or use another file."
            )
        if version < self.schema_version:
            self.migrate(connection, version)
            connection.execute(f"PRAGMA user_version = {self.schema_version:d}")


class _Connection(sqlite3.Connection):
    """A connection that says no where Python's would try forever."""

    def backup(self, *args: Any, **kwargs: Any) -> None:
        """Copy the database, unless a transaction of our own would block it."""
        if self.in_transaction:
            raise sqlite3.ProgrammingError("backup can't work in a transaction: use store.read")
        super().backup(*args, **kwargs)


Work = Callable[[Any], Any]
"""Gets the connection."""

# A longer group would make its first member wait for the last.
_LARGEST_GROUP: Final = 512


@define(eq=False)
class Job:
    """A work, and who waits for it."""

    work: Work
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    writes: bool
    result: Any = None
    error: BaseException | None = None

    @classmethod
    def of(cls, work: Work, *, writes: bool) -> "Job":
        """Return a job whose future belongs to the running loop."""
        loop = asyncio.get_running_loop()
        return cls(work, loop, loop.create_future(), writes)

    def resolve(self) -> None:
        """Give the waiting task its result; runs in its loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


@define(eq=False)
class DatabaseThread:
    """The thread that owns the connection."""

    _opening: Connector
    _queue: "SimpleQueue[Job | None]" = field(factory=SimpleQueue)
    _lock: threading.Lock = field(factory=threading.Lock)
    _thread: threading.Thread | None = None
    connection: Any = None
    _last: Job | None = None
    is_stopped: bool = False

    def submit(self, job: Job) -> None:
        """Queue a job, starting the thread with the first."""
        with self._lock:
            if self.is_stopped:
                raise ClientClosedError("This store is closed: make a new one.")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, name=self._opening.thread_name, daemon=True
                )
                self._thread.start()
            self._queue.put(job)

    def stop(self, last: Job | None = None) -> bool:
        """Let the thread end after what is queued; False if there is none to wait for."""
        with self._lock:
            if self.is_stopped or self._thread is None:
                self.is_stopped = True
                return False
            self.is_stopped, self._last = True, last
            self._queue.put(None)
            return True

    def join(self) -> None:
        """Block until the thread has ended, if there is one."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self) -> None:
        """Run groups of jobs until the end is asked for."""
        is_last = False
        while not is_last:
            jobs, is_last = self._next_group()
            wanted = [job for job in jobs if not job.future.cancelled()]
            for writes, group in itertools.groupby(wanted, key=lambda job: job.writes):
                self._run_group(list(group), writes=writes)
        self._close()
        if self._last is not None:
            _resolve_all([self._last])

    def _next_group(self) -> "tuple[list[Job], bool]":
        """Wait for a job and take what else is there; True with the last ones."""
        item = self._queue.get()
        jobs: list[Job] = []
        with contextlib.suppress(Empty):
            while item is not None:
                jobs.append(item)
                if len(jobs) == _LARGEST_GROUP:
                    return jobs, False
                item = self._queue.get_nowait()
            return jobs, True
        return jobs, False

    def _run_group(self, group: Sequence[Job], *, writes: bool) -> None:
        try:
            if writes:
                _write(self._begun(), group, self._opening.lost)
            else:
                for job in group:
                    _attempt(self._connected(), job)
        except Exception as error:
            for job in group:
                job.error = job.error or error
        self._drop_if_broken()
        _resolve_all(group)

    def _connected(self) -> Any:
        if self.connection is None:
            self.connection = self._opening.connect()
        return self.connection

    def _begun(self) -> Any:
        """Begin a transaction; on a new connection, if the old one was lost while it was idle."""
        try:
            self._connected().execute(self._opening.begin)
        except Exception:
            _roll_back(self.connection)
            if not self._drop_if_broken():
                raise
            self._connected().execute(self._opening.begin)
        return self.connection

    def _drop_if_broken(self) -> bool:
        if self.connection is None or not self._opening.is_broken(self.connection):
            return False
        self._close()
        return True

    def _close(self) -> None:
        if self.connection is not None:
            # A full disk can fail the last checkpoint; what was committed is in the WAL.
            with contextlib.suppress(Exception):
                self.connection.close()
            self.connection = None


def _write(connection: Database, group: Iterable[Job], lost: type[Exception]) -> None:
    """Run works in the transaction that was begun, and commit it; raise if it was lost."""
    try:
        for job in group:
            connection.execute("SAVEPOINT work")
            _attempt(connection, job)
            _check_transaction(connection, job, lost)
            if job.error is not None:
                connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: Database | None) -> None:
    if connection is not None:
        with contextlib.suppress(Exception):
            connection.execute("ROLLBACK")


def _check_transaction(connection: Database, job: Job, lost: type[Exception]) -> None:
    """Raise if the work ended the transaction: a full disk undoes earlier works too."""
    if not connection.in_transaction:
        raise lost("the shared transaction was lost") from job.error


def _attempt(connection: Database, job: Job) -> None:
    try:
        job.result = job.work(connection)
    except BaseException as error:
        job.error = error


def _resolve_all(jobs: Iterable[Job]) -> None:
    """Give the waiting tasks their results, waking each loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, its_jobs in by_loop.items():
        # In a loop that was closed meanwhile no task waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, its_jobs)


def _resolve(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.resolve()
