"""Where a call's instructions go: what of it is done by this package, each part by itself.

The parts don't add up to a call: the rest is aiohttp's, and the frames between them. CPU time
is too coarse for them, so they are measured where valgrind is installed.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from itertools import count
from typing import Any

from multidict import CIMultiDict

from benchmarks.canned_server import CANDIDATE, NEW_CANDIDATE, QUESTION
from benchmarks.figure import Figure
from benchmarks.meter import CAN_COUNT, Subject, Task, serve

__all__ = ["figures"]

_CALLS = 200
_NOTHING = "nothing"
_PARTS = {
    "guard": "a candidate checked: email address, phone number, fields",
    "encode": "its JSON written",
    "slot": "a slot of the quota granted, and ended by an answer",
    "headers": "the answer's rate headers read",
    "parse-candidate": "a candidate's JSON parsed",
    "read-candidate": "its object made, each field checked",
    "parse-question": "a question's JSON parsed",
    "read-question": "its object made, each field checked",
}


def figures() -> Iterator[Figure]:
    """Yield the instructions of each part; nothing without valgrind."""
    if not CAN_COUNT:
        return
    with Subject(["-m", "benchmarks.call_parts"], counted=True) as subject:
        loop = subject.cost(_NOTHING, _CALLS)
        for name, title in _PARTS.items():
            cost = subject.cost(name, _CALLS) - loop
            yield Figure(f"part of a call: {title}", f"{cost / 1000:.1f} k instructions")


def _repeated(part: Callable[[], object]) -> Task:
    async def repeat(times: int) -> None:
        for _ in range(times):
            part()

    return repeat


def _tasks() -> Mapping[str, Task]:
    from gather_async import RateLimit  # noqa: PLC0415 - once orjson was hidden
    from gather_async.clock import SystemClock  # noqa: PLC0415
    from gather_async.models import Candidate, NewCandidate, Question  # noqa: PLC0415
    from gather_async.protocol.requests import encode_body  # noqa: PLC0415
    from gather_async.protocol.responses import decode_item, parse_json  # noqa: PLC0415
    from gather_async.protocol.server_quota import (  # noqa: PLC0415
        ServerQuota,
        read_rate_headers,
    )
    from gather_async.quota import InProcessLimiter  # noqa: PLC0415

    limits = (RateLimit(1_000_000, per=60), RateLimit(10_000_000, per=3600))
    limiter, numbers = InProcessLimiter(limits, clock=SystemClock()), count(1)
    headers = CIMultiDict(
        {
            "Date": formatdate(usegmt=True),
            "X-RateLimit-Limit": "1000000",
            "X-RateLimit-Remaining": "999742",
            "X-RateLimit-Reset": "4102444800",
        }
    )
    fields: dict[str, Any] = {
        "first_name": NEW_CANDIDATE["firstName"],
        "last_name": NEW_CANDIDATE["lastName"],
        "email": NEW_CANDIDATE["email"],
        "phone": NEW_CANDIDATE["phone"],
        "external_id": NEW_CANDIDATE["externalId"],
    }
    candidate = {"data": CANDIDATE, "meta": {"requestId": "req_0123456789"}}
    question = {"data": {"question": QUESTION}, "meta": {"requestId": "req_0123456789"}}

    def slot() -> None:
        granted = limiter.grant("interactive")
        if granted is None:
            raise AssertionError("the windows have no room")
        granted.answered(ServerQuota(1_000_000, 1_000_000 - next(numbers), 4102444800.0))

    parts: Mapping[str, Callable[[], object]] = {
        _NOTHING: lambda: None,
        "guard": lambda: NewCandidate(**fields),
        "encode": lambda: encode_body(NEW_CANDIDATE),
        "slot": slot,
        "headers": lambda: read_rate_headers(headers),
        "parse-candidate": lambda: parse_json(candidate_body, is_write=True),
        "read-candidate": lambda: decode_item(candidate, "candidate", Candidate),
        "parse-question": lambda: parse_json(question_body, is_write=False),
        "read-question": lambda: decode_item(question, "question", Question),
    }
    candidate_body, question_body = (json.dumps(each).encode() for each in (candidate, question))
    return {name: _repeated(part) for name, part in parts.items()}


if __name__ == "__main__":
    hidden: Any = None  # as if it were not installed
    sys.modules["orjson"] = hidden
    asyncio.run(serve(_tasks()))
