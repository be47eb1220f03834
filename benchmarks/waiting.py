"""What it costs to wait for audio, and how long after it is ready a wait returns.

    python -m benchmarks.waiting

Audio takes 5 to 90 s on the virtual clock; requests are counted at FakeGather,
under the documented rate limits. "Webhooks" means that an event tells of each
question the moment it is ready. The plain poller is one loop per question that
reads it every 2 s; what it needs is counted as if no rate limit stopped it.
"""

import asyncio
import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from attrs import frozen

from benchmarks.figure import Figure, table
from gather_async import PollPolicy, Question, RateLimit
from gather_async.testing import FakeGather, VirtualClock
from gather_async.waiting import Listener

__all__ = ["figures"]

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
        looks = [math.ceil(each / _PLAIN_INTERVAL) for each in seconds]
        return _Outcome(
            requests=len(fake.requests) - before,
            delays=delays,
            plain_requests=sum(looks) + count,
            plain_delay=sum(
                look * _PLAIN_INTERVAL - each for look, each in zip(looks, seconds, strict=True)
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


def figures() -> Iterator[Figure]:
    """Yield the figures, for pages of 100; and of 50, as a server may have them."""
    for count in _COUNTS:
        for webhooks in (False, True):
            yield from _figures(count, page_size=100, webhooks=webhooks)
    yield from _figures(1000, page_size=50, webhooks=False)


if __name__ == "__main__":
    for line in table(figures()):
        print(line)
