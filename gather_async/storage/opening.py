"""How a connection to a database of the right version comes to be."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from gather_async.errors import ConfigurationError

__all__ = ["Migration", "Opening"]

Migration = Callable[[sqlite3.Connection, int], None]

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
class Opening:
    """How a connection comes to be."""

    path: str
    schema_version: int
    migrate: Migration
    synchronous: str
    busy_timeout: float

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
            self._enter_wal(connection)
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
