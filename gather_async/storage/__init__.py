"""Databases behind asyncio, for what must survive the process."""

from gather_async.storage.files import FileLock
from gather_async.storage.store import DatabaseStore, SQLiteStore
from gather_async.storage.worker import Cursor, Database

__all__ = ["Cursor", "Database", "DatabaseStore", "FileLock", "SQLiteStore"]
