"""Who waits for what, of one kind."""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from gather_async.errors import GatherError
from gather_async.protocol.polling import PollPolicy
from gather_async.waiting.list_index import Sought
from gather_async.waiting.waiter import Awaited, Waiter

__all__ = ["Roster"]

T = TypeVar("T")


class Roster(Generic[T]):
    """The awaited objects, each with its waiters. Falsy while nobody waits."""

    def __init__(self) -> None:
        self._awaited: dict[str, Awaited[T]] = {}
        self._policies: Counter[PollPolicy] = Counter()

    def __len__(self) -> int:
        return len(self._awaited)

    def __iter__(self) -> Iterator[Awaited[T]]:
        return iter(self._awaited.values())

    def get(self, id: str) -> Awaited[T] | None:
        """Return what is awaited under an id; None if nobody waits for it."""
        return self._awaited.get(id)

    @property
    def policies(self) -> Iterable[PollPolicy]:
        """Those of all waiters; at least one."""
        return self._policies or (PollPolicy(),)

    @property
    def share(self) -> float:
        """The largest share of the quota that a waiter grants."""
        return max(each.quota_share for each in self.policies)

    @property
    def first(self) -> float:
        """The shortest first interval that a waiter asks for, in seconds."""
        return min(each.first for each in self.policies)

    def add(self, waiter: Waiter[T], now: float, *, told_at: float | None, seen: T | None) -> None:
        """Let somebody wait; the first look is due at once unless one was just made."""
        awaited = self._awaited.get(waiter.id)
        if awaited is None:
            awaited = Awaited(waiter.id, Sought(waiter.id, since=now), due=now)
            self._awaited[waiter.id] = awaited
        elif now - awaited.looked_at > waiter.policy.first:
            awaited.due = now
        else:
            awaited.due = min(awaited.due, awaited.looked_at + waiter.policy.first)
        awaited.waiters.add(waiter)
        if awaited.last is None:
            awaited.last = seen
        if told_at is not None and told_at > awaited.told_at:
            awaited.told_at, awaited.is_told, awaited.due = told_at, True, now
        self._policies[waiter.policy] += 1

    def drop(self, waiter: Waiter[T]) -> None:
        """Forget a waiter; harmless if it is forgotten."""
        awaited = self._awaited.get(waiter.id)
        if awaited is None or waiter not in awaited.waiters:
            return
        awaited.waiters.discard(waiter)
        self._policies -= Counter([waiter.policy])
        if not awaited.waiters:
            del self._awaited[waiter.id]

    def last_of(self, waiter: Waiter[T]) -> T | None:
        """Return what was last read of what somebody waits for."""
        awaited = self._awaited.get(waiter.id)
        return None if awaited is None else awaited.last

    def end(self, waiter: Waiter[T], outcome: T | BaseException) -> None:
        """End one wait."""
        self.drop(waiter)
        waiter.finish(outcome)

    def end_all(self, error: BaseException) -> None:
        """End every wait with an error of its own."""
        for awaited in list(self._awaited.values()):
            self.end_each(awaited, error)

    def end_each(self, awaited: Awaited[T], error: BaseException) -> None:
        """End every wait for one object with an error of its own."""
        for waiter in list(awaited.waiters):
            own = error
            if isinstance(error, GatherError):  # one traceback for each caller
                own = copy.copy(error)
                own.__cause__ = error
            self.end(waiter, own)

    def forget_all(self) -> None:
        """Forget everybody: their event loop is gone."""
        self._awaited.clear()
        self._policies.clear()

    def tell(self, ids: frozenset[str], now: float) -> None:
        """Take in an event. One that names nothing is about anything awaited."""
        for each in ids:
            awaited = self._awaited.get(each)
            if awaited is not None:
                awaited.told_at, awaited.is_told, awaited.due = now, True, now
        if not ids:
            for awaited in self._awaited.values():
                awaited.due = now
