"""Client CPU of a call, against a bare aiohttp loop that does the same HTTP in the same run."""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from attrs import frozen

from benchmarks.canned_server import NEW_CANDIDATE, QUESTION_ID, canned_server
from benchmarks.figure import Figure
from gather_async import GatherClient, RateLimit

__all__ = ["figures"]

_TARGET = 1.35
_ROUNDS = 21
_CALLS = 150
_KEY = "qapi_benchmark"
_ROOMY = (RateLimit(1_000_000, per=60), RateLimit(10_000_000, per=3600))

_Call = Callable[[], Awaitable[object]]


@frozen
class _Contest:
    """Two ways to do the same thing."""

    name: str
    ours: _Call
    bare: _Call


@asynccontextmanager
async def _contests(url: str) -> AsyncIterator[list[_Contest]]:
    """Yield what is compared; both sides send and receive the same JSON over kept connections."""
    async with (
        aiohttp.ClientSession() as session,
        GatherClient(_KEY, base_url=url, rate_limits=_ROOMY) as gather,
    ):

        async def bare(method: str, path: str, body: Any) -> Any:
            headers = {"x-api-key": _KEY}
            async with session.request(method, url + path, json=body, headers=headers) as response:
                return await response.json()

        yield [
            _Contest(
                "candidates.create",
                lambda: gather.candidates.create(
                    first_name=NEW_CANDIDATE["firstName"],
                    last_name=NEW_CANDIDATE["lastName"],
                    email=NEW_CANDIDATE["email"],
                    phone=NEW_CANDIDATE["phone"],
                    external_id=NEW_CANDIDATE["externalId"],
                ),
                lambda: bare("POST", "/qsi/gather/candidates", NEW_CANDIDATE),
            ),
            _Contest(
                "questions.get",
                lambda: gather.questions.get(QUESTION_ID),
                lambda: bare("GET", f"/qsi/gather/questions/{QUESTION_ID}", None),
            ),
        ]


async def _cpu(call: _Call) -> float:
    """Return this process's CPU seconds per call, over one round."""
    gc.collect()
    start = time.process_time()
    for _ in range(_CALLS):
        await call()
    return (time.process_time() - start) / _CALLS


async def _compare(contest: _Contest) -> Figure:
    """Run both sides in turn, and report the median of the rounds' ratios."""
    rounds = [(await _cpu(contest.ours), await _cpu(contest.bare)) for _ in range(_ROUNDS + 1)][1:]
    ratio = statistics.median(ours / bare for ours, bare in rounds)
    ours = statistics.median(ours for ours, _ in rounds)
    return Figure(
        name=f"{contest.name}, client CPU",
        value=f"{ratio:.2f} x aiohttp ({ours * 1e6:.0f} us)",
        target=f"<= {_TARGET}",
        ok=ratio <= _TARGET,
    )


async def _measure() -> list[Figure]:
    with canned_server() as url:
        async with _contests(url) as contests:
            return [await _compare(contest) for contest in contests]


def figures() -> Iterator[Figure]:
    """Yield the ratio of each call."""
    yield from asyncio.run(_measure())
