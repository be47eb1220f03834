"""What it costs to wait for audio, and how long after it is ready a wait returns.

    python -m benchmarks.waiting

Audio takes 5 to 90 s on the virtual clock; requests are counted at FakeGather,
under the documented rate limits. "Webhooks" means that an event tells of each
question the moment it is ready. The plain poller is one loop per question that
reads it every 2 s; what it needs is counted as if no rate limit stopped it.

CPU and the longest step of the event loop are those of one `wait_until_all_audio_ready`
alone: pages come from memory, the quota is plenty.
"""

import asyncio
import gc
import math
import random
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from attrs import evolve, frozen

from benchmarks.figure import Figure, table
from gather_async import PollPolicy, Question, RateLimit
from gather_async.pager import Page
from gather_async.protocol.polling import PollBudget
from gather_async.quota.priority_queue import Priority
from gather_async.testing import FakeGather, VirtualClock
from gather_async.waiting import Listener
from gather_async.waiting.conditions import audio_ready
from gather_async.waiting.coordinator import Coordinator

__all__ = ["TimedSelector", "figures"]

_COUNTS = (1, 10, 100, 1000)
_SHORTEST, _LONGEST = 5.0, 90.0  # seconds of audio generation
_PLAIN_INTERVAL = 2.0  # seconds
_MINUTE, _HOUR = RateLimit(100, per=60), RateLimit(1000, per=3600)
_PLENTY = (RateLimit(1_000_000, per=60),)


class _Signals:
    """Events by hand."""

    alive = True

    def __init__(self) -> None:
        self.listener: Listener | None = None

    def subscribe(self, listener: Listener, /) -> Callable[[], None]:
        self.listener = listener
        return lambda: None

    def tell(self, question_id: str) -> None:
        if self.listener is not None:
            self.listener("question.audio_generated", frozenset({question_id}))


@frozen
class _Outcome:
    requests: int
    delays: Sequence[float]
    plain_requests: int
    plain_delay: float


async def _create(fake: FakeGather, clock: VirtualClock, count: int) -> Sequence[str]:
    """Create questions with a client that no limit stops, as if they had been there."""
    async with fake.client(rate_limits=_PLENTY) as maker:
        made = await asyncio.gather(
            *(
                maker.questions.create(
                    title=f"Question {number}", question_script="Why?", user_id=fake.user_id
                )
                for number in range(count)
            )
        )
    return [question.id for question in made]


async def _measure(count: int, *, page_size: int, webhooks: bool, seed: int) -> _Outcome:
    """Wait for that many questions at once."""
    clock, rng, signals = VirtualClock(), random.Random(seed), _Signals()
    seconds = [rng.uniform(_SHORTEST, _LONGEST) for _ in range(count)]
    async with FakeGather(
        clock=clock, audio_seconds=math.inf, questions_page_size=page_size
    ) as fake:
        ids = await _create(fake, clock, count)
        ready_at: dict[str, float] = {}
        for question_id, after in zip(ids, seconds, strict=True):
            fake.finish_audio(question_id, after=after)
            ready_at[question_id] = clock.monotonic() + after
            if webhooks:
                clock.call_later(after, partial(signals.tell, question_id))
        before = len(fake.requests)
        delays = []
        async with fake.client(
            rate_limits=(_MINUTE, _HOUR),
            rng=rng,
            signals=signals if webhooks else None,
        ) as gather:
            async for question in gather.questions.wait_until_all_audio_ready(ids, timeout=3600):
                assert isinstance(question, Question)
                delays.append(clock.monotonic() - ready_at[question.id])
        polls = [math.ceil(each / _PLAIN_INTERVAL) for each in seconds]
        return _Outcome(
            requests=len(fake.requests) - before,
            delays=delays,
            plain_requests=sum(polls) + count,
            plain_delay=sum(
                poll * _PLAIN_INTERVAL - each for poll, each in zip(polls, seconds, strict=True)
            )
            / count,
        )


def _figures(count: int, *, page_size: int, webhooks: bool) -> Iterator[Figure]:
    seeds = range(20) if count < 100 else range(3)
    runs = [
        asyncio.run(_measure(count, page_size=page_size, webhooks=webhooks, seed=seed))
        for seed in seeds
    ]
    each = sum(run.requests for run in runs) / count / len(runs)
    delay = sum(sum(run.delays) for run in runs) / count / len(runs)
    most = {1000: 0.2}.get(count)
    latest = {100: PollPolicy().cap / 2, 1000: 15.0}.get(count)
    name = f"{count} waits{', webhooks' if webhooks else ''}, {page_size} a page"
    yield Figure(
        f"{name}: requests each",
        f"{each:.3f}",
        None if most is None else f"<= {most}",
        None if most is None else each <= most,
    )
    yield Figure(
        f"{name}: mean delay",
        f"{delay:.2f} s",
        None if latest is None else f"<= {latest} s",
        None if latest is None else delay <= latest,
    )
    if not webhooks and page_size == 100:
        plain = sum(run.plain_requests for run in runs) / len(runs)
        hours = max(plain / _HOUR.limit - 1, 0)
        value = f"{plain / count:.1f}, {plain:.0f} in all"
        yield Figure(f"{count} waits, plain poller at 2 s: requests each", value)
        if hours:
            yield Figure(f"{count} waits, plain poller: quota it needs", f"{hours + 1:.0f} hours'")


class TimedSelector(selectors.DefaultSelector):
    """A selector that knows how long its event loop was busy between two selects."""

    longest = 0.0
    _began: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Note how long it is since the last one ended."""
        if self._began is not None:
            self.longest = max(self.longest, time.thread_time() - self._began)
        try:
            return super().select(timeout)
        finally:
            self._began = time.thread_time()


async def _wait_from_memory(count: int, selector: TimedSelector) -> float:
    """Wait for that many questions whose pages are at hand; return the CPU of each."""
    clock, rng = VirtualClock(), random.Random(1)
    ids = [f"q{number}" for number in range(count)]
    ends = {each: clock.monotonic() + rng.uniform(_SHORTEST, _LONGEST) for each in ids}
    unfinished = {each: Question(id=each, transcription_status="processing") for each in ids}
    finished = {
        each: Question(id=each, transcription_status="complete", audio_url="https://audio.invalid")
        for each in ids
    }

    async def read(name: str, *_: object) -> Question:
        await asyncio.sleep(0)
        return (finished if ends[name] <= clock.monotonic() else unfinished)[name]

    async def page(number: int, priority: Priority) -> Page[Question]:
        await asyncio.sleep(0)
        now, shown = clock.monotonic(), ids[(number - 1) * 100 : number * 100]
        return Page(
            items=tuple((finished if ends[each] <= now else unfinished)[each] for each in shown),
            page=number,
            total=count,
            has_next=number * 100 < count,
            fetch_next=partial(page, number + 1, priority),
        )

    coordinator = Coordinator(
        evolve(audio_ready({}), read=read, page=page),
        budget=PollBudget(lambda: _PLENTY),
        clock=clock,
        rng=rng,
        is_alive=lambda: False,
    )
    gc.collect()
    await asyncio.sleep(0)
    selector.longest = 0.0
    began, ended = time.process_time(), 0
    async for _ in coordinator.wait_each(ids, timeout=3600):
        ended += 1
    assert ended == count
    return (time.process_time() - began) / count


def _growth() -> Iterator[Figure]:
    """Yield what the number of waits does to the cost of each."""
    each: dict[int, float] = {}
    held: dict[int, float] = {}
    for count in (1_000, 10_000):
        selector = TimedSelector()
        with asyncio.Runner(loop_factory=partial(asyncio.SelectorEventLoop, selector)) as runner:
            each[count] = runner.run(_wait_from_memory(count, selector))
            held[count] = selector.longest
    ratio = each[10_000] / each[1_000]
    yield Figure("1000 waits: CPU each", f"{each[1_000] * 1e6:.0f} us")
    yield Figure("10 000 waits: CPU each", f"{ratio:.2f} x 1000 waits", "<= 1.3", ratio <= 1.3)
    longest = held[10_000] * 1000
    yield Figure(
        "10 000 waits: event loop held at most", f"{longest:.1f} ms", "<= 20 ms", longest <= 20.0
    )


def figures() -> Iterator[Figure]:
    """Yield the figures, for pages of 100; and of 50, as a server may have them."""
    for count in _COUNTS:
        for webhooks in (False, True):
            yield from _figures(count, page_size=100, webhooks=webhooks)
    yield from _figures(1000, page_size=50, webhooks=False)
    yield from _growth()


if __name__ == "__main__":
    for line in table(figures()):
        print(line)
