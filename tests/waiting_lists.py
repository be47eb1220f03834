"""A list at the server, and a scheduler of polls for what is in it; time is a number."""

import math
import random
from collections.abc import Sequence

from attrs import evolve

from gather_async import PollPolicy, Question, RateLimit
from gather_async.pager import Page
from gather_async.protocol.polling import PollBudget
from gather_async.waiting.conditions import Condition, audio_ready
from gather_async.waiting.scheduler import Scheduler
from gather_async.waiting.targets import Target, Waiter

__all__ = ["SELDOM", "Simulated", "a_condition", "a_page", "names", "no_more_pages", "processing"]

SELDOM = PollPolicy(first=1e6, cap=1e6)
PLENTY = [RateLimit(1_000_000, per=60)]


async def no_more_pages(*_: object) -> Page[Question] | None:
    """Return nothing: what a page holds is recorded by hand."""
    return None


def a_condition(*, has_list: bool = True) -> Condition[Question]:
    """Return the wait for audio, with or without a list."""
    condition = audio_ready({})
    return condition if has_list else evolve(condition, page=None)


class Simulated:
    """A list at the server, and a scheduler that polls it as fast as it likes."""

    def __init__(
        self,
        ids: list[str],
        size: int,
        *,
        counts: bool = True,
        paged: bool = True,
        has_list: bool = True,
    ) -> None:
        self.ids, self.size, self.counts, self.paged = ids, size, counts, paged
        self.scheduler = Scheduler(
            a_condition(has_list=has_list),
            PollBudget(lambda: PLENTY),
            random.Random(1),
            is_alive=lambda: False,
        )
        self.index = self.scheduler._index
        self.now = 0.0
        self.pages = self.singles = 0

    def wait_for(self, ids: Sequence[str], policy: PollPolicy = SELDOM) -> list[Target[Question]]:
        """Add a waiter for each id; return the targets."""
        for each in ids:
            waiter = Waiter[Question](each, policy, self.now, math.inf, print)
            self.scheduler.add(waiter, self.now)
        return [self.scheduler.targets[each] for each in ids]

    def sweep(self) -> int:
        """Poll everything once; return the requests that it took."""
        before, began = self.pages + self.singles, self.now
        self.scheduler.notify(frozenset(), self.now)
        while any(each.polled_at < began for each in self.scheduler.targets.values()):
            [poll] = self.plan(1)
            self.now += 0.001
            if poll is not None:
                self.answer(poll)
        self.now += 0.001
        return self.pages + self.singles - before

    def plan(self, times: int) -> list[str | int | None]:
        """Plan polls; return them."""
        return [self.scheduler.plan(self.now)[0] for _ in range(times)]

    def answer(self, poll: str | int) -> None:
        """Answer a poll."""
        if isinstance(poll, str):
            self.singles += 1
            self.scheduler.record_read(poll, processing(poll), self.now)
        else:
            self.pages += 1
            number = poll if self.paged else 1
            shown = self.ids[(number - 1) * self.size : number * self.size]
            more = poll * self.size < len(self.ids) if self.counts else bool(shown)
            page = Page[Question](
                items=tuple(processing(each) for each in shown),
                page=poll,
                total=len(self.ids) if self.counts else None,
                has_next=more,
                fetch_next=no_more_pages,  # type: ignore[arg-type]  # never called
            )
            self.scheduler.record_page(poll, page, self.now)


def processing(name: str) -> Question:
    """Return a question whose audio isn't ready."""
    return Question(id=name, transcription_status="processing")


def names(count: int) -> list[str]:
    """Return ids."""
    return [f"q{number}" for number in range(count)]


def a_page(ids: Sequence[str]) -> Page[Question]:
    """Return the only page of a list."""
    return Page[Question](
        items=tuple(processing(each) for each in ids),
        page=1,
        total=len(ids),
        has_next=False,
        fetch_next=no_more_pages,  # type: ignore[arg-type]  # never called
    )
