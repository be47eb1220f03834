"""When requests were sent, for the quota of the process after the next crash."""

import sqlite3

from attrs import define, field

__all__ = ["RequestTimes"]

_HOUR = 3600.0  # the longest documented window. Source: /getting-started/rate-limits


@define(eq=False)
class RequestTimes:
    """The journal's table of requests. Its methods run on the journal's thread."""

    _run: int
    """The run that sends them."""
    _owner: str
    """The limiter that counts what is written here; it needs no telling."""
    ended: list[tuple[int, float | None]] = field(factory=list)
    """Numbers of requests, and when they ended; None if they never were sent.
    Filled in the loop, emptied by the thread."""

    def start(self, connection: sqlite3.Connection, at: float) -> int:
        """Write down a request that is about to be sent, in Unix seconds."""
        self.write_ended(connection)
        written = connection.execute(
            "INSERT INTO requests (at, run, owner) VALUES (?, ?, ?)", (at, self._run, self._owner)
        )
        connection.execute("DELETE FROM requests WHERE at < ?", (at - _HOUR,))
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

    def last(self, connection: sqlite3.Connection) -> dict[int, float]:
        """Return when each run of the last hour sent its last request, in Unix seconds."""
        return dict(connection.execute("SELECT run, max(at) FROM requests GROUP BY run"))

    def adopt(self, connection: sqlite3.Connection, now: float) -> list[float]:
        """Return the last hour's requests of other limiters, and make them this one's."""
        found = connection.execute(
            "SELECT at FROM requests WHERE owner != ? AND at > ? ORDER BY at",
            (self._owner, now - _HOUR),
        ).fetchall()
        connection.execute("UPDATE requests SET owner = ?", (self._owner,))
        return [at for (at,) in found]
