"""Look-ups of a write whose fate is unknown."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from attrs import define, frozen

from gather_async.clock import Clock
from gather_async.errors import (
    GatherAPIError,
    GatherConnectionError,
    GatherError,
    GatherTimeoutError,
    ResponseDecodeError,
)
from gather_async.protocol.api_errors import server_time
from gather_async.protocol.reconciliation import LookupResult, Reconciliation, Verdict, began_at
from gather_async.protocol.requests import Request
from gather_async.protocol.retry import backoff

__all__ = ["CreatedObjects", "LostWrite", "Reconciler", "Result"]

_FIRST_PAUSE = 0.5
"""Seconds: most lost responses are of writes that were carried out at once."""
_MOST_CREATED = 1024  # more than the longest window lets a client create
_LONGEST_PAUSE = 16.0
"""Seconds: with doubling, seven look-ups fit into the default `RetryPolicy.in_flight_timeout`."""


@define(eq=False)
class Result:
    """A response's JSON and its headers. Its ``repr`` shows neither."""

    payload: Any
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return "<Result>"


class CreatedObjects:
    """The last objects that this client's writes returned, by id and by what they were made of."""

    def __init__(self) -> None:
        self._keys: dict[str, Hashable] = {}  # by id, in order of entry
        self._ids: dict[Hashable, str] = {}
        self._turns: WeakValueDictionary[tuple[int, Hashable], asyncio.Lock] = WeakValueDictionary()

    def add(self, id: str, key: Hashable = None) -> None:
        """Record an object, and forget the oldest beyond 1024."""
        self._keys[id] = key
        if key is not None:
            self._ids[key] = id
        if len(self._keys) > _MOST_CREATED:
            oldest = next(iter(self._keys))
            if self._ids.get(dropped := self._keys.pop(oldest)) == oldest:
                del self._ids[dropped]

    def find(self, key: Hashable) -> str | None:
        """Return the id of the last object under a key; None if there is none."""
        return self._ids.get(key)

    def turn(self, key: Hashable) -> asyncio.Lock:
        """Return the running loop's lock of a key."""
        place = (id(asyncio.get_running_loop()), key)
        lock = self._turns.get(place)
        if lock is None:
            lock = self._turns[place] = asyncio.Lock()
        return lock

    def __contains__(self, id: object) -> bool:
        return id in self._keys


@frozen(kw_only=True)
class LostWrite:
    """A write that may have been carried out, and the time to find that out."""

    error: GatherError
    """How it failed: what is raised if nothing is proven."""
    began: float
    """When it was first attempted, monotonic seconds."""
    given_up: float
    """When the last attempt failed, monotonic seconds."""
    in_flight_timeout: float
    """Seconds from then in which the server may still carry it out."""
    time_left: float
    """Seconds from then after which the call ends."""
    not_before: float
    """Seconds from then that the server asked to be left alone."""


@define(eq=False, kw_only=True)
class Reconciler:
    """Polls for what a lost write made until it is found, surely absent, or out of time."""

    clock: Clock
    read: Callable[[Request], Awaitable[Result]]
    """Sends one read, once."""
    sleep: Callable[[float], Awaitable[None]]

    async def find(self, evidence: Reconciliation, lost: LostWrite) -> Result | None:
        """Return what the write made; None if it wasn't and can't be carried out any more.

        Raises:
            GatherError: ``lost.error``, since nothing was proven in time.
        """
        settled_at = lost.given_up + lost.in_flight_timeout
        ends_at = lost.given_up + lost.time_left
        number, not_before = 0, lost.given_up + lost.not_before
        cause: GatherError | None = None
        while (now := self.clock.monotonic()) < ends_at:
            number += 1
            pause = backoff(number, base=_FIRST_PAUSE, cap=_LONGEST_PAUSE)
            at = max(now + pause, not_before)
            if now < settled_at < at:
                at = max(settled_at, not_before)  # the look-up that may prove absence
            at = min(at, ends_at)
            try:
                await self.sleep(at - now)
                # Absence counts from when the look-up is sent, not from when it is answered.
                may_be_absent = self.clock.monotonic() >= settled_at
                found, headers = await self._look_up(evidence, lost)
            except GatherError as error:
                if not _is_transient(error):
                    raise lost.error from error
                cause = error
                not_before = self.clock.monotonic() + (getattr(error, "retry_after", None) or 0.0)
                continue
            cause = None
            if found.verdict is Verdict.FOUND:
                return Result({"data": found.item}, headers)
            if may_be_absent and found.verdict is Verdict.ABSENT:
                return None
            if may_be_absent:
                break
        raise lost.error from cause

    async def _look_up(
        self, evidence: Reconciliation, lost: LostWrite
    ) -> tuple[LookupResult, Mapping[str, str]]:
        """Read the list once, and singly what it leaves unclear."""
        sent_at = self.clock.monotonic()
        listed = await self.read(evidence.lookup.request)
        # From before the request, so that the time on the way can't make an object too old.
        elapsed = sent_at - lost.began
        began = began_at(listed.payload, server_time(listed.headers), elapsed)
        result = evidence.record_list(listed.payload, began=began)
        if result.verdict is not Verdict.UNREAD:
            return result, listed.headers
        reads = {}
        for each in result.ids:
            try:
                reads[each] = (await self.read(evidence.lookup.read(each))).payload
            except GatherAPIError as error:
                if error.status != 404:  # the object is listed, and can't be read yet
                    raise
        return evidence.record_reads(listed.payload, reads, began=began), listed.headers


def _is_transient(error: GatherError) -> bool:
    """Return whether a failed look-up may succeed later."""
    if isinstance(error, GatherAPIError):
        return error.status >= 500 or error.status in {408, 429}
    return isinstance(error, GatherConnectionError | GatherTimeoutError | ResponseDecodeError)
