"""SQLite behind asyncio, for what must survive the process."""

from gather_async.storage.store import FileLock, SQLiteStore

__all__ = ["FileLock", "SQLiteStore"]
