"""An inbox in this process's memory: nothing survives a crash."""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, Literal

from attrs import define, frozen

from gather_async.validators import Number
from gather_async.webhooks.inbox import ClaimResult, DeadLetter, HandlerJob, PutResult, StoredEvent

__all__ = ["MemoryInbox"]

_TaskName = tuple[str, str]
_AT_ONCE: Final = 0.0


class MemoryInbox:
    """Events in memory, bounded: when it is full, the sender is asked to try again.

    An event that was answered with 200 is lost if the process dies before its
    handlers are done; `SQLiteInbox` keeps it.
    """

    is_shared: Literal[False] = False

    def __init__(self, capacity: int = 10_000, *, remember: int = 100_000) -> None:
        """Make an inbox.

        Args:
            capacity: Events at most that wait for a handler; with more, the sender gets
                a 503. As many dead letters are kept, the newest.
            remember: Finished events whose repetition is still recognised, the newest.

        Raises:
            ConfigurationError: A number is below 1.
        """
        count = Number(least=1, whole=True)
        self._capacity: int = count.check("capacity", capacity)
        self._remember: int = count.check("remember", remember)
        self._numbers = itertools.count()
        self._now = 0.0
        self._open: dict[str, int] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._subjects: OrderedDict[str, tuple[str, bool]] = OrderedDict()
        self._tasks: dict[_TaskName, _State] = {}
        self._due: list[tuple[float, int, _TaskName]] = []
        self._dead: OrderedDict[_TaskName, _Dead] = OrderedDict()

    async def put(self, event: StoredEvent, handlers: Collection[str]) -> PutResult:
        """Keep an event for handlers; see `Inbox.put`."""
        if self._knows(event):
            return PutResult.DUPLICATE
        names = set(handlers)
        if names and len(self._open) >= self._capacity:
            return PutResult.FULL
        if event.subject is not None:
            self._subjects[event.subject] = (event.state, event.synthetic)
            self._subjects.move_to_end(event.subject)
            _trim(self._subjects, self._remember)
        if not names:
            self._finish(event.key)
            return PutResult.NEW
        self._open[event.key] = len(names)
        for name in sorted(names):
            self._tasks[event.key, name] = state = _State(event)
            self._schedule((event.key, name), state, _AT_ONCE)
        return PutResult.NEW

    async def knows(self, event: StoredEvent) -> bool:
        """Tell whether `put` would call it a duplicate."""
        return self._knows(event)

    async def claim(
        self, handlers: Collection[str], *, limit: int, now: float, until: float
    ) -> ClaimResult:
        """Take due tasks; see `Inbox.claim`."""
        self._follow(now)
        tasks: list[HandlerJob] = []
        others: list[tuple[float, int, _TaskName]] = []
        while self._due and len(tasks) < limit and self._due[0][0] <= now:
            entry = heapq.heappop(self._due)
            state = self._tasks.get(entry[2])
            if state is None or state.entry != entry[1]:
                continue
            if entry[2][1] not in handlers:
                others.append(entry)
                continue
            tasks.append(self._hand_out(entry[2], state, until))
        for entry in others:
            heapq.heappush(self._due, entry)
        return ClaimResult(tasks=tasks, next_due=self._next_due(handlers))

    async def renew(self, tasks: Collection[HandlerJob], *, until: float) -> None:
        """Make leases last longer; see `Inbox.renew`."""
        for task in tasks:
            state = self._held(task)
            if state is not None:
                self._schedule((task.event.key, task.handler), state, until)

    async def succeed(self, task: HandlerJob, *, now: float) -> None:
        """Never give this task out again; see `Inbox.succeed`."""
        self._end((task.event.key, task.handler))

    async def retry(self, task: HandlerJob, *, due_at: float, error: str) -> None:
        """Count a failure, and give the task out again; see `Inbox.retry`."""
        state = self._held(task)
        if state is not None:
            state.failures += 1
            self._schedule((task.event.key, task.handler), state, due_at)

    async def bury(self, task: HandlerJob, *, now: float, error: str) -> None:
        """Make the task a dead letter; see `Inbox.bury`."""
        if self._held(task) is None:
            return
        name = (task.event.key, task.handler)
        self._end(name)
        self._dead[name] = _Dead(task.event, task.failures + 1, now, error)
        _trim(self._dead, self._capacity)

    async def release(self, task: HandlerJob) -> None:
        """Give the task back; see `Inbox.release`."""
        state = self._held(task)
        if state is not None:
            state.starts -= 1
            self._schedule((task.event.key, task.handler), state, _AT_ONCE)

    async def dead_letters(self, *, limit: int) -> Sequence[DeadLetter]:
        """Return the dead letters, oldest first."""
        return [
            DeadLetter(
                event=dead.event.decode(),
                handler=handler,
                key=key,
                failures=dead.failures,
                died_at=dead.died_at,
                error=dead.error,
            )
            for (key, handler), dead in itertools.islice(self._dead.items(), limit)
        ]

    async def replay(self, letters: Collection[DeadLetter] | None) -> int:
        """Make dead letters due again; see `Inbox.replay`."""
        names = self._chosen(letters)
        for name in names:
            event = self._dead.pop(name).event
            self._seen.pop(event.key, None)
            self._open[event.key] = self._open.get(event.key, 0) + 1
            self._tasks[name] = state = _State(event)
            self._schedule(name, state, _AT_ONCE)
        return len(names)

    async def discard(self, letters: Collection[DeadLetter] | None) -> int:
        """Give dead letters up; see `Inbox.discard`."""
        names = self._chosen(letters)
        for name in names:
            del self._dead[name]
        return len(names)

    async def waiting(self) -> dict[str, int]:
        """Return how many tasks of each handler are neither done nor dead."""
        counts: dict[str, int] = {}
        for _, handler in self._tasks:
            counts[handler] = counts.get(handler, 0) + 1
        return counts

    async def prune(self, *, now: float) -> int:
        """Do nothing: what is remembered is bounded by number."""
        return 0

    async def aclose(self) -> None:
        """Do nothing: what waits goes on waiting for as long as this object lives."""

    def __repr__(self) -> str:
        return f"<MemoryInbox {len(self._open)} of {self._capacity}, {len(self._dead)} dead>"

    def _knows(self, event: StoredEvent) -> bool:
        return event.key in self._open or event.key in self._seen or self._is_told(event)

    def _is_told(self, event: StoredEvent) -> bool:
        latest = None if event.subject is None else self._subjects.get(event.subject)
        return latest is not None and latest[0] == event.state and (latest[1] or event.synthetic)

    def _follow(self, now: float) -> None:
        """Move what is scheduled with a clock that went back."""
        back = self._now - now
        self._now = now
        if back > 0:
            for name, state in self._tasks.items():
                if state.due_at > _AT_ONCE:
                    self._schedule(name, state, state.due_at - back)

    def _schedule(self, name: _TaskName, state: "_State", due_at: float) -> None:
        state.entry, state.due_at = next(self._numbers), due_at
        heapq.heappush(self._due, (due_at, state.entry, name))

    def _hand_out(self, name: _TaskName, state: "_State", until: float) -> HandlerJob:
        crashes = state.starts - state.failures
        state.starts += 1
        state.token = str(state.starts)
        self._schedule(name, state, until)
        return HandlerJob(
            event=state.event,
            handler=name[1],
            failures=state.failures,
            crashes=crashes,
            token=state.token,
        )

    def _held(self, task: HandlerJob) -> "_State | None":
        """Return the task's state, if the claim still holds."""
        state = self._tasks.get((task.event.key, task.handler))
        return state if state is not None and state.token == task.token else None

    def _end(self, name: _TaskName) -> None:
        if self._tasks.pop(name, None) is None:
            return
        self._open[name[0]] -= 1
        if not self._open[name[0]]:
            del self._open[name[0]]
            self._finish(name[0])

    def _finish(self, key: str) -> None:
        self._seen[key] = None
        _trim(self._seen, self._remember)

    def _next_due(self, handlers: Collection[str]) -> float | None:
        while self._due:
            due_at, entry, name = self._due[0]
            state = self._tasks.get(name)
            if state is not None and state.entry == entry and name[1] in handlers:
                return due_at
            if state is not None and state.entry == entry:
                return min(
                    (s.due_at for n, s in self._tasks.items() if n[1] in handlers), default=None
                )
            heapq.heappop(self._due)
        return None

    def _chosen(self, letters: Collection[DeadLetter] | None) -> list[_TaskName]:
        if letters is None:
            return list(self._dead)
        return _known(((letter.key, letter.handler) for letter in letters), self._dead)


@define
class _State:
    """A task that is neither done nor dead."""

    event: StoredEvent
    failures: int = 0
    starts: int = 0
    token: str = ""
    entry: int = -1
    due_at: float = 0.0


@frozen
class _Dead:
    """What is left of a task that failed for good."""

    event: StoredEvent
    failures: int
    died_at: float
    error: str


def _trim(items: OrderedDict[Any, Any], most: int) -> None:
    while len(items) > most:
        items.popitem(last=False)


def _known(names: Iterable[_TaskName], dead: Collection[_TaskName]) -> list[_TaskName]:
    return [name for name in dict.fromkeys(names) if name in dead]
