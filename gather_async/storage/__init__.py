"""Databases behind asyncio, for what must survive the process."""

from gather_async.storage.database import Cursor, Database, DatabaseStore
from gather_async.storage.sqlite import FileLock, SQLiteStore

__all__ = ["Cursor", "Database", "DatabaseStore", "FileLock", "SQLiteStore"]
