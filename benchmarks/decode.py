"""A page of 100 of each model, from bytes to models and counts, against ``json.loads``.

Each object has every field that its model names. Ours is measured without orjson and with it.
"""

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.util import find_spec
from types import UnionType
from typing import Any, get_args, get_origin

import attrs

from benchmarks.figure import Figure
from benchmarks.meter import CAN_COUNT, Subject, Task, serve
from gather_async.models import (
    Candidate,
    CandidateInterview,
    Interview,
    MessageGroup,
    Narrator,
    Question,
    Team,
    User,
)
from gather_async.models.enums import OpenEnum
from gather_async.models.fields import WIRE_NAME

__all__ = ["figures"]

_ITEMS = 100
_CALLS = 20
_MODELS: Mapping[str, type] = {
    "candidates": Candidate,
    "candidateInterviews": CandidateInterview,
    "interviews": Interview,
    "messageGroups": MessageGroup,
    "narrators": Narrator,
    "questions": Question,
    "teams": Team,
    "users": User,
}
_TARGETS = {False: 2.0, True: 1.6}
_ID = "7b0c3c2e-6f0e-4a8e-9d0c-0d9f5b1c2a11"


def figures() -> Iterator[Figure]:
    """Yield the ratio of each model, without orjson and with it where it is installed."""
    for fast in (False, True) if find_spec("orjson") else (False,):
        command = ["-m", "benchmarks.decode", "fast" if fast else "plain"]
        with Subject(command, counted=CAN_COUNT) as subject:
            for plural in _MODELS:
                yield _figure(subject, plural, fast=fast)


def _figure(subject: Subject, plural: str, *, fast: bool) -> Figure:
    bare, ours = (subject.cost(f"{task}-{plural}", _CALLS) for task in ("json", "ours"))
    ratio, unit = ours / bare, "M instructions" if CAN_COUNT else "s"
    return Figure(
        f"page of {_ITEMS} {plural}{', orjson' if fast else ''}",
        f"{ratio:.2f} x json.loads",
        f"<= {_TARGETS[fast]}",
        ratio <= _TARGETS[fast] + 0.005,  # as it is shown
        detail=f"{ours / 1e6:.2f} {unit}" if CAN_COUNT else f"{ours * 1e6:.0f} us",
    )


def _sample(kind: Any, name: str) -> Any:
    """Return JSON that a field of this type may have."""
    if isinstance(kind, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is tuple:
        return [_sample(get_args(kind)[0], name)] * 2
    if get_origin(kind) is not None or kind is Any:
        return {}
    if attrs.has(kind):
        fields = [each for each in attrs.fields(kind) if each.name not in {"extra", "status_code"}]
        return {
            each.metadata.get(WIRE_NAME, each.name): _sample(each.type, each.name)
            for each in fields
        }
    if issubclass(kind, OpenEnum):
        return next(iter(kind)).value
    plain: Mapping[type, Any] = {
        bool: True,
        int: 7,
        float: 0.5,
        datetime: "2025-06-01T12:00:03.125Z",
        str: _ID if name == "id" or name.endswith("_id") else "Tell me about yourself",
    }
    return plain[kind]


def _page(plural: str) -> bytes:
    model = _MODELS[plural]
    items = [{**_sample(model, ""), "id": f"{_ID}-{number}"} for number in range(_ITEMS)]
    return json.dumps({"data": {plural: items}, "meta": {}}).encode()


def _tasks() -> Iterator[tuple[str, Task]]:
    from gather_async import endpoint  # noqa: PLC0415 - once orjson was hidden
    from gather_async.protocol.responses import parse_json  # noqa: PLC0415

    no_session: Any = None
    for plural in _MODELS:
        name = re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", plural)
        listing = getattr(endpoint, f"{name}_endpoint")(no_session)
        body = _page(plural)
        read: tuple[Any, ...] = listing.read_page(parse_json(body, is_write=False))[0]
        if len(read) != _ITEMS or any(item.extra for item in read):
            raise AssertionError(f"the page of {plural} wasn't read as a whole")

        async def bare(count: int, body: bytes = body) -> None:
            for _ in range(count):
                json.loads(body)

        async def ours(count: int, body: bytes = body, listing: Any = listing) -> None:
            for _ in range(count):
                listing.read_page(parse_json(body, is_write=False))

        yield f"json-{plural}", bare
        yield f"ours-{plural}", ours


if __name__ == "__main__":
    if sys.argv[1] == "plain":
        hidden: Any = None  # as if it were not installed
        sys.modules["orjson"] = hidden
    asyncio.run(serve(dict(_tasks())))
