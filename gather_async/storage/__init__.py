"""Databases behind asyncio, for what must survive the process."""

from gather_async.storage.database import Cursor, Database
from gather_async.storage.sqlite import FileLock
from gather_async.storage.store import DatabaseStore, SQLiteStore

__all__ = ["Cursor", "Database", "DatabaseStore", "FileLock", "SQLiteStore"]
