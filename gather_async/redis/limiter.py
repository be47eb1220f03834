"""The quota of one API key, shared by processes and machines through a Redis server."""

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Sequence
from typing import Self

from gather_async.clock import Clock, SystemClock
from gather_async.errors import ClientClosedError, ConfigurationError, QuotaWaitError
from gather_async.loops import running_loop
from gather_async.protocol.rolling_windows import (
    DEFAULT_RATE_LIMITS,
    RateLimit,
    RollingWindows,
    check_rate_limits,
)
from gather_async.quota.limiter import Slot
from gather_async.quota.priority_queue import PRIORITY, Priority
from gather_async.quota.queued_limiter import Pace
from gather_async.redis.connection import RedisClient, RedisConnection, RedisError
from gather_async.redis.outage import LocalQuota, OnOutage, Outage
from gather_async.redis.step import STEP, EndedRequest, WaitingCalls, step_arguments
from gather_async.redis.stepped_limiter import SteppedLimiter
from gather_async.validators import Choice, Number, Secret, hide_arguments, revealed

__all__ = [
    "RedisLimiter",
]

_ABOVE = Number(above=0, unit="seconds")
_LEAST = Number(least=0, unit="seconds")

# Seconds. A lease must outlast a step that is repeated; a process that was killed keeps its
# slots for as long.
_LEASE = (0.5, 10.0)
# Seconds that slots are kept for a process that is late, and that an answer waits for a step to
# go along with: long against the clocks' and the loop's delays, short against the window.
_PATIENCE = (0.004, 0.25)
_CALL = 1.0  # seconds for a step: a server that answers later than that is as good as gone


class RedisLimiter(SteppedLimiter):
    """Grants slots of one key's quota to the calls of all processes that share it.

    The rules are those of the limiter in one process: the windows, the priorities, the
    reserve. Slots go to the processes that were served least. A process asks the server for
    all its waiting calls at once, with one script, one call in flight at a time.

    The server keeps when requests were answered, and what each process has in flight. A
    process that dies has its requests in flight counted as answered when its lease ends; one
    that only was stopped for so long takes that back, and reports what became of them. If
    the server loses its state, the processes restore it from what each remembers: all but what
    one that died less than a lease before had in flight. Nothing on the server is named by the
    API key but by a digest of it, and everything there expires.

    It may be used in any number of event loops and threads, and after a fork. Use it as an
    async context manager, or call `aclose`: a client doesn't close a limiter that it was given.

    >>> limiter = RedisLimiter("redis://localhost", key="qapi_a_key")
    >>> limiter.status().windows[0].limit
    100
    """

    @hide_arguments
    def __init__(
        self,
        url: str | bytes | Secret | RedisClient,
        *,
        key: str | bytes | Secret,
        rate_limits: Sequence[RateLimit] = DEFAULT_RATE_LIMITS,
        reserve: int = 5,
        pace: Pace = "burst",
        lease: float | None = None,
        on_outage: OnOutage = "raise",
        outage_wait: float = 2.0,
        clock: Clock | None = None,
    ) -> None:
        """Make a limiter. Nothing is sent or opened yet.

        Args:
            url: Where the Redis server is: ``redis://``, ``rediss://`` with TLS, ``unix://``; or
                a client of `redis.asyncio`, such as a cluster's or Sentinel's, which is never
                closed here.
            key: The API key whose quota it is.
            rate_limits: The rolling windows of the key; the same in all processes.
            reserve: Requests of each window that bulk work never takes, in all processes.
            pace: ``"burst"`` lets bulk work use what is free, ``"even"`` spreads it over
                the longest window.
            lease: Seconds for which requests in flight are kept for a process that is not
                there any more; it renews its lease three times in that time. None: a quarter
                of the shortest window, but 0.5 to 10.
            on_outage: What becomes of calls while the server can't be asked: ``"raise"``
                ends them with an error, ``"local"`` lets each process use its share alone.
            outage_wait: Seconds for which calls wait for the server before that.
            clock: Where time comes from; None: the machine's clock.

        Raises:
            ConfigurationError: An argument can't work.
        """
        Choice(("raise", "local")).check("on_outage", on_outage)
        _LEAST.check("outage_wait", outage_wait)
        if lease is not None:
            _ABOVE.check("lease", lease)
        shortest = min(each.per for each in check_rate_limits(rate_limits))
        # Half of the wait at the most: a second attempt fits into it.
        timeout = min(_CALL, outage_wait / 2 + 0.25)
        connection = RedisConnection(url, timeout=timeout)
        self.identity: str = f"redis:{_digest(key)}"
        # The braces keep all of a key's state on one server of a cluster.
        prefix = f"gather:{{{_digest(key)}}}:quota"
        super().__init__(
            rate_limits,
            reserve=reserve,
            pace=pace,
            clock=clock or SystemClock(),
            connection=connection,
            keys=[f"{prefix}:{part}" for part in ("log", "state", "procs")],
            lease=lease or _within(_LEASE, shortest / 4),
            patience=_within(_PATIENCE, shortest / 200),
            timeout=timeout,
            outage=Outage(connection.place, on_outage, outage_wait),
        )

    async def acquire(self, *, priority: Priority, max_wait: float | None) -> Slot:
        """Return a slot, as soon as the windows allow.

        Args:
            priority: ``"interactive"`` or ``"bulk"``.
            max_wait: Seconds, from 0; None waits as long as it takes. Whether it suffices is
                forecast once the server was asked.

        Raises:
            QuotaWaitError: It would take longer than ``max_wait``, or did.
            QuotaUnavailableError: The server can't be asked.
            ConfigurationError: No such priority, or ``max_wait`` is negative.
            ClientClosedError: The limiter is closed.

        Cancelling the call leaves no trace and loses no slot.
        """
        PRIORITY.check("priority", priority)
        if self._is_closed:
            raise _closed()
        slot = await self._wait_in_line(max_wait, bulk=priority == "bulk")
        while self._clock.monotonic() >= self._good_until:
            # The process was stopped since: others may have this slot by now.
            slot.returned()
            slot = await self._wait_in_line(max_wait, bulk=priority == "bulk")
        return slot

    def _waited_in_vain(self, max_wait: float, *, bulk: bool) -> QuotaWaitError:
        error = super()._waited_in_vain(max_wait, bulk=bulk)
        with self._lock:
            step = self._step
            asked_at = math.inf if step is None else step.asked_at
            is_late = self._clock.monotonic() - asked_at > self._settings.patience
            if self._outage.since == math.inf and not is_late:
                return error
        return QuotaWaitError(
            f"{self._outage.place}, which keeps the quota, did not answer within "
            f"max_wait={max_wait:g}: try again, or raise max_wait.",
            available_at=error.available_at,
            wait=error.wait,
        )

    def _serve_alone(self, now: float) -> float:
        local = self._outage.local
        if local is None:
            if not self._outage.is_local or now < self._outage.limit:
                return math.inf
            local = self._go_alone(now)
            if local is None:
                return math.inf
        held = self._hold.until - self._state.offset
        at = math.inf
        for queue, bulk in ((self._queues.interactive, False), (self._queues.bulk, True)):
            while queue.waiting and now >= held and local.start(now, bulk=bulk):
                waiter = queue.pop()
                if waiter is None:
                    local.ended(now, 1, sent=False)
                    break
                self._good_until = math.inf
                self._let_go(waiter, now)
            if queue.waiting and at == math.inf:
                at = max(held, local.free_at(now, bulk=bulk))
        return at

    def _go_alone(self, now: float) -> LocalQuota | None:
        """Go on without the server, on this process' clock; None if there are too many of us."""
        state, offset = self._state, self._state.offset
        if not LocalQuota.fits(self._windows, state.living):
            return None
        self._outage.is_over(now)
        limits = [RateLimit(each.limit, each.period) for each in self._windows.windows]
        windows = RollingWindows(limits, reserve=self._windows.reserve)
        windows.insert([at - offset for at in self._known().answers(now + offset)], now)
        windows.in_flight = self._windows.in_flight
        local = LocalQuota(windows, processes=state.living, ours=self._in_flight, now=now)
        self._outage.local = local
        return local

    async def aclose(self) -> None:
        """Report what ended, and close the connection; harmless to repeat.

        Calls that wait get a `ClientClosedError`. What is in flight counts as answered now.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._calls.refuse_all(_closed)
            step, now = self._step, self._clock.monotonic()
            self._step = None
            ended = (step.ended if step is not None else []) + self._ended
            self._number += 1
            ended += [EndedRequest(self._number, now)] * self._in_flight
            was_used = bool(self._state.epoch) or bool(ended)
            arguments = step_arguments(
                self._state,
                self._settings,
                process=self._process,
                number=self._number,
                now=now,
                flying=0,
                waiting=WaitingCalls(),
                ended=ended,
                is_last=True,
            )
        if step is not None and step.task is not None and step.home.loop is running_loop():
            step.task.cancel()
            await asyncio.wait({step.task})
        with contextlib.suppress(RedisError):  # its lease will end
            if was_used and not self._outage.is_declared:
                await self._connection.run(STEP, self._keys, arguments)
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        if self._is_closed:
            raise _closed()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _within(bounds: tuple[float, float], value: float) -> float:
    least, most = bounds
    return min(most, max(least, value))


def _closed() -> ClientClosedError:
    return ClientClosedError("This limiter is closed: make a new RedisLimiter.")


def _digest(key: object) -> str:
    """Return what stands for an API key on the server.

    Raises:
        ConfigurationError: It is no text, or blank; the message doesn't repeat it.
    """
    text = revealed(key)
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError("key must be the API key whose quota is shared, as text.")
    return hashlib.blake2b(
        text.strip().encode(), digest_size=12, person=b"gather quota"
    ).hexdigest()
