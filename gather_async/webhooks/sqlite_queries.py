"""The statements of an inbox file; each function runs inside one transaction."""

import json
import os
import sqlite3
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from gather_async.webhooks.inbox import ClaimResult, DeadLetter, HandlerJob, PutResult, StoredEvent

__all__ = [
    "bury",
    "claim",
    "dead_letters",
    "discard",
    "free_abandoned",
    "is_process_gone",
    "knows",
    "process_token",
    "prune",
    "put",
    "release",
    "renew",
    "replay",
    "retry",
    "succeed",
    "waiting",
]

_PROC = Path("/proc")
_ENDED = frozenset("ZXx")


def process_token() -> str:
    """Return what names this process among all of this machine; empty where that can't be told.

    A number of a process is used again, so the mark has its start as well; and another
    container has other processes of the same numbers, so it has their namespace and
    the kernel's run, too. Only Linux tells all of these.
    """
    return _mark(os.getpid())


def is_process_gone(mark: str) -> bool:
    """Tell whether the process of a mark is certainly gone. False if nobody can tell."""
    place, _, process = mark.partition(" ")
    number, _, start = process.partition(" ")
    if not number.isdigit() or place != _place():
        return False
    try:
        os.kill(int(number), 0)
        return _start_of(int(number)) != start
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is somebody else's, or hidden
        return False


@lru_cache(maxsize=1)
def _mark(number: int) -> str:
    try:
        return f"{_place()} {number} {_start_of(number)}" if _place() else ""
    except OSError:
        return ""


@lru_cache(maxsize=1)
def _place() -> str:
    """Return the kernel's run and the namespace of the processes; empty if unknown."""
    try:
        run = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{run}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(number: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if it only waits to be reaped."""
    # The command's name comes second, in brackets, and may hold spaces and brackets.
    fields = (_PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    return None if fields[0] in _ENDED else fields[19]


# No lease and no pause is longer, so what seems due later was written before the clock went back.
_HORIZON: Final = 7200.0
_NEVER: Final = 1e18
_BITE: Final = 500


def put(connection: sqlite3.Connection, event: StoredEvent, handlers: Collection[str]) -> PutResult:
    """Keep an event and a task for each handler, unless it is known."""
    if _is_told(connection, event):
        return PutResult.DUPLICATE
    inserted = connection.execute(
        "INSERT INTO events (key, text, default_event, received_at, synthetic, signed)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        (
            event.key,
            event.text,
            event.default_event,
            event.received_at,
            event.synthetic,
            event.signed,
        ),
    )
    if not inserted.rowcount:
        return PutResult.DUPLICATE
    if event.subject is not None:
        connection.execute(
            "INSERT OR REPLACE INTO subjects VALUES (?, ?, ?)",
            (event.subject, event.state, event.synthetic),
        )
    connection.executemany(
        "INSERT INTO tasks (event_id, handler, due_at) VALUES (?, ?, 0)",
        [(inserted.lastrowid, name) for name in sorted(set(handlers))],
    )
    return PutResult.NEW


def knows(connection: sqlite3.Connection, event: StoredEvent) -> bool:
    """Tell whether `put` would call it a duplicate."""
    row = connection.execute("SELECT 1 FROM events WHERE key = ?", (event.key,)).fetchone()
    return row is not None or _is_told(connection, event)


def claim(
    connection: sqlite3.Connection,
    handlers: Collection[str],
    *,
    limit: int,
    now: float,
    until: float,
    token: str,
) -> ClaimResult:
    """Take due tasks under a new token."""
    names = json.dumps(sorted(handlers))
    rows = _due(connection, names, 0.0, now, limit)
    if len(rows) < limit:
        rows += _due(connection, names, now + _HORIZON, _NEVER, limit - len(rows))
    connection.executemany(
        "UPDATE tasks SET due_at = ?, starts = starts + 1, token = ?"
        " WHERE event_id = ? AND handler = ?",
        [(until, token, row[0], row[1]) for row in rows],
    )
    following = connection.execute(
        "SELECT due_at FROM tasks WHERE state = 'pending'"
        " AND handler IN (SELECT value FROM json_each(?)) ORDER BY due_at LIMIT 1",
        (names,),
    ).fetchone()
    next_due = None if following is None else following[0]
    return ClaimResult(tasks=[_task(row, token) for row in rows], next_due=next_due)


def free_abandoned(connection: sqlite3.Connection, now: float) -> None:
    """Make tasks due at once whose process died under a lease that goes on."""
    tokens = connection.execute(
        "SELECT DISTINCT token FROM tasks"
        " WHERE state = 'pending' AND due_at > ? AND token IS NOT NULL",
        (now,),
    ).fetchall()
    for (token,) in tokens:
        if is_process_gone(token.rpartition(" ")[0]):
            connection.execute(
                "UPDATE tasks SET due_at = 0, token = NULL WHERE state = 'pending' AND token = ?",
                (token,),
            )


def renew(connection: sqlite3.Connection, tasks: Collection[HandlerJob], until: float) -> None:
    """Make leases last longer."""
    for task in tasks:
        _change_held(connection, task, "due_at = ?", until)


def succeed(connection: sqlite3.Connection, task: HandlerJob, now: float) -> None:
    """End a task, whoever holds it: its handler did succeed."""
    connection.execute(
        "UPDATE tasks SET state = 'done', ended_at = ?, error = NULL"
        " WHERE event_id = (SELECT id FROM events WHERE key = ?) AND handler = ?",
        (now, task.event.key, task.handler),
    )


def retry(connection: sqlite3.Connection, task: HandlerJob, due_at: float, error: str) -> None:
    """Count a failure, and make the task due then."""
    change = "failures = failures + 1, due_at = ?, error = ?, token = NULL"
    _change_held(connection, task, change, due_at, _storable(error))


def bury(connection: sqlite3.Connection, task: HandlerJob, now: float, error: str) -> None:
    """Count a failure, and make the task a dead letter."""
    change = "state = 'dead', failures = failures + 1, ended_at = ?, error = ?"
    _change_held(connection, task, change, now, _storable(error))


def release(connection: sqlite3.Connection, task: HandlerJob) -> None:
    """Give a task back, due at once."""
    _change_held(connection, task, "starts = starts - 1, due_at = 0, token = NULL")


def dead_letters(connection: sqlite3.Connection, limit: int) -> Sequence[DeadLetter]:
    """Return the dead letters, oldest first."""
    rows = connection.execute(
        "SELECT t.handler, t.failures, t.ended_at, t.error,"
        " e.key, e.text, e.default_event, e.received_at, e.synthetic, e.signed"
        " FROM tasks t JOIN events e ON e.id = t.event_id"
        " WHERE t.state = 'dead' ORDER BY t.ended_at, t.event_id LIMIT ?",
        (limit,),
    )
    return [
        DeadLetter(
            event=_event(row[4:]).decode(),
            handler=row[0],
            key=row[4],
            failures=row[1],
            died_at=row[2],
            error=row[3] or "",
        )
        for row in rows
    ]


def replay(connection: sqlite3.Connection, letters: Collection[DeadLetter] | None) -> int:
    """Make dead letters due again."""
    return _change_dead(
        connection,
        "state = 'pending', failures = 0, starts = 0, token = NULL, ended_at = NULL, due_at = 0",
        letters,
    )


def discard(connection: sqlite3.Connection, letters: Collection[DeadLetter] | None) -> int:
    """Give dead letters up: done, though nothing was."""
    return _change_dead(connection, "state = 'done'", letters)


def waiting(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the number of pending tasks of each handler."""
    return dict(
        connection.execute(
            "SELECT handler, count(*) FROM tasks WHERE state = 'pending' GROUP BY handler"
        ).fetchall()
    )


def prune(connection: sqlite3.Connection, before: float) -> int:
    """Forget some events that are old and done with; return how many."""
    return connection.execute(
        "DELETE FROM events WHERE id IN (SELECT id FROM events e WHERE received_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM tasks WHERE event_id = e.id AND state != 'done')"
        " ORDER BY received_at LIMIT ?)",
        (before, _BITE),
    ).rowcount


def _due(
    connection: sqlite3.Connection, names: str, first: float, last: float, limit: int
) -> list[Any]:
    """Return pending tasks that are due in a range, and their events."""
    return connection.execute(
        "SELECT t.event_id, t.handler, t.failures, t.starts,"
        " e.key, e.text, e.default_event, e.received_at, e.synthetic, e.signed"
        " FROM tasks t JOIN events e ON e.id = t.event_id"
        " WHERE t.state = 'pending' AND t.due_at BETWEEN ? AND ?"
        " AND t.handler IN (SELECT value FROM json_each(?))"
        " ORDER BY t.due_at, t.event_id LIMIT ?",
        (first, last, names, limit),
    ).fetchall()


def _is_told(connection: sqlite3.Connection, event: StoredEvent) -> bool:
    if event.subject is None:
        return False
    latest = connection.execute(
        "SELECT state, synthetic FROM subjects WHERE subject = ?", (event.subject,)
    ).fetchone()
    return latest is not None and latest[0] == event.state and (latest[1] or event.synthetic)


def _change_dead(
    connection: sqlite3.Connection,
    change: str,
    letters: Collection[DeadLetter] | None,
) -> int:
    statement = f"UPDATE tasks SET {change} WHERE state = 'dead'"  # noqa: S608 - our own words
    if letters is None:
        return connection.execute(statement).rowcount
    one = " AND handler = ? AND event_id = (SELECT id FROM events WHERE key = ?)"
    return sum(
        connection.execute(statement + one, (letter.handler, letter.key)).rowcount
        for letter in letters
    )


def _change_held(
    connection: sqlite3.Connection, task: HandlerJob, change: str, *values: float | str
) -> None:
    """Change a task whose claim still holds."""
    connection.execute(
        f"UPDATE tasks SET {change}"  # noqa: S608 - our own words
        " WHERE event_id = (SELECT id FROM events WHERE key = ?) AND handler = ?"
        " AND token = ? AND state = 'pending'",
        (*values, task.event.key, task.handler, task.token),
    )


def _task(row: Sequence[Any], token: str) -> HandlerJob:
    _, handler, failures, starts = row[:4]
    return HandlerJob(
        event=_event(row[4:]),
        handler=handler,
        failures=failures,
        crashes=starts - failures,
        token=token,
    )


def _event(row: Sequence[Any]) -> StoredEvent:
    key, text, default_event, received_at, synthetic, signed = row
    return StoredEvent(
        key=key,
        text=text,
        default_event=default_event,
        received_at=received_at,
        synthetic=bool(synthetic),
        signed=bool(signed),
    )


def _storable(error: str) -> str:
    """Return a message that SQLite can keep: it refuses lone surrogates."""
    return error.encode("utf-8", "backslashreplace").decode()
