"""SQLite behind asyncio, for what must survive the process."""

from gather_async.storage.store import SQLiteStore

__all__ = ["SQLiteStore"]
