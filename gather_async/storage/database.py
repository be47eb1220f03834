"""A database behind asyncio: one connection, on one thread of ours, commits grouped."""

import asyncio
import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from attrs import define, field

from gather_async.errors import ClientClosedError
from gather_async.loops import outside_work

__all__ = ["Connector", "Cursor", "Database", "DatabaseStore", "DatabaseThread", "Job", "Work"]

T = TypeVar("T")
D = TypeVar("D")


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


class DatabaseStore(Generic[D]):
    """One database, used from any number of tasks and event loops.

    It is opened with the first `run`. The thread is a daemon, so a store that was never
    closed does not hold up the interpreter's exit, and loses nothing that was committed.
    """

    def __init__(self, connector: Connector) -> None:
        """Make a store. Nothing is opened yet."""
        self._worker = DatabaseThread(connector)
        # A store that was dropped unclosed must not keep its thread.
        self._finalizer = weakref.finalize(self, self._worker.stop)

    async def run(self, work: Callable[[D], T]) -> T:
        """Run a work on the thread, and return its result once it is committed.

        Works run one at a time, in the order of their calls. Those that queued up
        meanwhile share one transaction and one disk flush, each inside its own
        savepoint: one that raises is undone alone.

        A work that was cancelled before it began does not run; later on it runs to
        its end, and whether it was committed is left open.

        Args:
            work: Gets the connection. It may write, and must neither commit, roll back,
                keep the connection, nor touch the loop.

        Raises:
            ConfigurationError: The database can't be opened, or was written by a newer
                version. The next call tries to open it again.
            ClientClosedError: The store is closed.
            sqlite3.Error: The disk is full, or another process kept the file for longer
                than ``busy_timeout``; nothing of the work was kept.
            Exception: What the work or its database raised; nothing of it was kept.
        """
        return cast("T", await self._submit(work, writes=True))

    async def read(self, work: Callable[[D], T]) -> T:
        """Run a work outside a transaction: one that only reads, or what needs to be there.

        Reading waits for no other process. ``Connection.backup`` and
        ``PRAGMA wal_checkpoint`` work here and only here: inside a write transaction
        SQLite refuses them forever. Each statement that writes is a transaction of its own.

        Raises:
            Exception: As for `run`.
        """
        return cast("T", await self._submit(work, writes=False))

    def start(self, work: Callable[[D], object]) -> None:
        """Queue a work like `run`, for a caller that can't wait, nor hear of an error.

        A store that is closed leaves it undone.
        """
        job = Job.of(work, writes=True)
        job.future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        with contextlib.suppress(ClientClosedError):
            self._worker.submit(job)

    @property
    def connection(self) -> D | None:
        """The open connection; only the thread may use it."""
        return cast("D | None", self._worker.connection)

    async def aclose(self) -> None:
        """Finish what was asked for, close the file and end the thread; harmless to repeat.

        Cancelling it leaves the thread to finish by itself.
        """
        self._finalizer.detach()
        end = Job.of(bool, writes=False)
        if self._worker.stop(end):
            with outside_work():
                await end.future

    def close(self) -> None:
        """Do what `aclose` does, and block until then: for a process that is about to fork."""
        self._finalizer.detach()
        self._worker.stop()
        self._worker.join()

    async def _submit(self, work: Work, *, writes: bool) -> Any:
        job = Job.of(work, writes=writes)
        self._worker.submit(job)
        with outside_work():
            return await job.future

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self._worker.is_stopped else 'open'}>"
