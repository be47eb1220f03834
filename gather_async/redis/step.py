"""One step of a shared limiter: what a process reports, and what it gets to know."""

import asyncio
import math
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from attrs import define, field, frozen

from gather_async.models.rate_limit import QueueStatus
from gather_async.protocol.rolling_windows import RollingWindows
from gather_async.protocol.server_quota import ServerQuota
from gather_async.quota.call_queue import CallWaiter, LoopHome
from gather_async.redis.connection import Argument, Script, decoded

__all__ = [
    "EndedRequest",
    "STEP",
    "SeenQuota",
    "SharedState",
    "StepInFlight",
    "StepSettings",
    "UndecidedCall",
    "WaitingCalls",
    "microseconds",
    "seconds",
    "step_arguments",
]

STEP = Script((files("gather_async.redis") / "step.lua").read_text(encoding="utf-8"))

_RUNS = re.compile(r"([ib])(\d+)")
_LOST = "lost"
_LATE = "late"


@frozen
class EndedRequest:
    """A request that was answered or given up."""

    reported: int
    """The number of the step that reports it first: one that was carried out counts it once."""
    at: float
    """When, on the process' monotonic clock."""


@frozen(kw_only=True)
class StepSettings:
    """Settings of all steps of a process, in seconds."""

    lease: float
    """How long what it has in flight is kept for a process that reports nothing more."""
    patience: float
    """How long slots are kept for a process that is late."""
    interval: float
    """Between two starts of bulk work at the least."""

    settle: float
    """How long nothing starts on a server that lost its state: all renew their lease in it."""


@define(eq=False)
class SeenQuota:
    """Quota in the headers of one response, until the step that reports the response."""

    quota: ServerQuota
    sent_at: float
    at: float
    reset_in: float | None


@frozen
class WaitingCalls:
    """Numbers of a process' calls that wait, as the server knows them."""

    interactive: int = 0
    bulk: int = 0

    @classmethod
    def of(cls, status: QueueStatus) -> "WaitingCalls":
        """Return those that wait now."""
        return cls(status.interactive, status.bulk)

    def without(self, granted: Iterable[tuple[bool, int]]) -> "WaitingCalls":
        """Return those that still wait after some got slots."""
        interactive, bulk = self.interactive, self.bulk
        for is_bulk, count in granted:
            interactive, bulk = interactive - count * (not is_bulk), bulk - count * is_bulk
        return WaitingCalls(interactive, bulk)

    def cover(self, *, bulk: bool) -> bool:
        """Return whether the server will say when a call of that priority may go, or one before."""
        return self.interactive > 0 or (bulk and self.bulk > 0)


@define(eq=False)
class StepInFlight:
    """A step in flight."""

    home: LoopHome
    asked_at: float
    ends: float
    """When it is given up, should its loop be blocked."""
    waiting: WaitingCalls = field(factory=WaitingCalls)
    flying: int = 0
    ended: list[EndedRequest] = field(factory=list)
    seen: list[SeenQuota] = field(factory=list)
    has_hold_news: bool = False
    task: "asyncio.Task[None] | None" = None


@define(eq=False)
class UndecidedCall:
    """A call whose ``max_wait`` is compared with the forecast of the next step."""

    waiter: CallWaiter
    deadline: float
    max_wait: float
    bulk: bool
    position: int = field(default=0)
    """Calls of its priority in the queue when it joined, itself included."""

    @property
    def is_over(self) -> bool:
        """Whether it has a slot, or left."""
        return self.waiter.slot is not None or self.waiter.has_left


def microseconds(at: float) -> int:
    """Return seconds as whole microseconds."""
    return round(at * 1e6)


def seconds(reply: Any) -> float:
    """Return a reply's microseconds as seconds."""
    return int(reply) / 1e6


@define(eq=False)
class SharedState:
    """The shared state as a process knows it, as of its last step.

    Instants are those of the server's clock, in seconds.
    """

    windows: RollingWindows
    """A mirror of the server's log."""
    offset: float
    """From the process' monotonic clock to the server's; a guess before the first step."""
    as_of: float = -math.inf
    """When the last step was asked for, on the monotonic clock."""
    epoch: str = ""
    head: int = 0
    flying: int = 0
    """Requests that other processes have in flight."""
    hold: float = -math.inf
    is_hold_news: bool = False
    """Whether the server doesn't know of the hold yet."""
    wake: float = math.inf
    """When a slot may be free for what waits."""
    living: int = 1
    """Processes, this one included."""
    rivals: int = 0
    """Other processes in which calls wait."""
    others: tuple[int, int] = (0, 0)
    """Calls that wait in them, interactive and bulk."""
    next_bulk: float = -math.inf
    granted: Sequence[tuple[bool, int]] = ()
    """Slots of the last step in their order: whether for bulk work, and how many."""
    is_lost: bool = field(default=False, init=False)
    """Whether the server has another state than this one, and wants to know it."""

    def memory(self, now: float) -> list[int]:
        """Return when all known requests ended, for a server that lost them."""
        return [microseconds(at) for at in self.windows.answers(now + self.offset)]

    def known(self, ended: Iterable[EndedRequest], now: float) -> RollingWindows:
        """Return the windows with what ended and was not reported yet."""
        windows = self.windows.copy()
        windows.insert([each.at + self.offset for each in ended], now)
        return windows

    def record(self, reply: Sequence[Any], *, asked_at: float, flying: int) -> bool:
        """Take over what a step's reply says; return whether the step was carried out.

        Args:
            reply: What the script returned.
            asked_at: When the step was asked for, on the monotonic clock.
            flying: What the process had in flight then.
        """
        result = decoded(reply[0])
        if result in {_LOST, _LATE}:
            self.is_lost = result == _LOST
            return False
        _, now, granted, in_flight, hold, epoch, head, wake, *more = reply
        living, others_i, others_b, rivals, next_bulk, fresh = more
        # The server's clock was read later than that, so this process is never ahead of it
        # by more than the answer took: it comes neither early nor much too late.
        offset = seconds(now) - asked_at
        if not self.epoch:  # what came before was on a guessed clock
            self.hold += offset - self.offset
        self.offset, self.as_of = offset, asked_at
        if decoded(epoch) != self.epoch:
            self.windows.clear()
        for at in fresh:
            self.windows.answered(seconds(at))
        self.epoch, self.head, self.is_lost = decoded(epoch), int(head), False
        runs = _RUNS.findall(decoded(granted))
        self.granted = [(each == "b", int(count)) for each, count in runs]
        self.flying = max(0, int(in_flight) - flying - sum(count for _, count in self.granted))
        self.hold = max(self.hold, seconds(hold))
        self.wake = seconds(wake) if int(wake) else math.inf
        self.living, self.rivals = int(living), int(rivals)
        self.others = int(others_i), int(others_b)
        self.next_bulk = seconds(next_bulk)
        return True


def step_arguments(
    state: SharedState,
    settings: StepSettings,
    *,
    process: str,
    number: int,
    now: float,
    flying: int,
    waiting: WaitingCalls,
    ended: Sequence[EndedRequest],
    is_last: bool = False,
) -> list[Argument]:
    """Return the script's arguments.

    Args:
        state: What the process knows.
        settings: What stays the same.
        process: The process' name.
        number: Greater in each step of the process.
        now: The present on the monotonic clock.
        flying: What the process has in flight.
        waiting: Its calls that wait.
        ended: What it reports.
        is_last: Whether the process leaves.
    """
    windows = state.windows
    given: list[Argument] = [
        "",  # the server's own clock
        process,
        number,
        0 if is_last else microseconds(settings.lease),
        state.epoch,
        state.head,
        flying,
        waiting.interactive,
        waiting.bulk,
        max(0, microseconds(state.hold - now - state.offset)) if state.is_hold_news else 0,
        microseconds(settings.patience),
        microseconds(settings.settle),
        windows.reserve,
        microseconds(settings.interval),
        len(windows.windows),
    ]
    for each in windows.windows:
        given += [each.limit, each.bulk_limit, math.ceil(each.period * 1e6), each.external]
        given += [microseconds(each.external_until), microseconds(each.probe_at)]
    given.append(len(ended))
    for request in ended:
        given += [request.reported, max(0, math.floor((now - request.at) * 1e6))]
    memory = state.memory(now) if state.is_lost else None
    given += [-1] if memory is None else [len(memory), *memory]
    return given
