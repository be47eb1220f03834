"""Journals that outlive their store: files to open again, and copies that have no file."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from weakref import finalize

from attrs import define

from gather_async.bulk.journal import Journal

__all__ = ["Connect", "connect_to", "copy_file", "private_copy"]

Connect = Callable[[], AbstractContextManager[sqlite3.Connection]]


def connect_to(path: Path) -> Connect:
    """Return what opens a journal's file for reading, and closes it."""
    # Not "ro": a reader that may not write leaves the files of its WAL behind.
    uri = f"{path.resolve().as_uri()}?mode=rw"

    def connect() -> AbstractContextManager[sqlite3.Connection]:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.execute("PRAGMA query_only = ON")
        return closing(connection)

    return connect


async def private_copy(journal: Journal) -> Connect:
    """Return what gives a copy of the journal that lasts as long as anybody can ask for it.

    The copy has no name: SQLite keeps what doesn't fit its cache in a temporary
    file that is removed as soon as it is opened.
    """
    connection = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    keeper = _Keeper(connection)
    finalize(keeper, connection.close)
    await journal.copy_to(connection)
    return keeper.connect


def copy_file(source: Path, target: Path) -> bool:
    """Copy a journal's file, which a job may be writing; return whether there is one."""
    if not source.exists():
        return False
    with connect_to(source)() as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return True


@define(eq=False)
class _Keeper:
    """Owns a connection, which is closed when the keeper is forgotten."""

    _connection: sqlite3.Connection

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        yield self._connection
