"""A page of 100 candidates, from bytes to models, against ``json.loads`` alone."""

import json
import timeit
from collections.abc import Iterator

from benchmarks.canned_server import CANDIDATE
from benchmarks.figure import Figure
from gather_async.models import Candidate
from gather_async.protocol.responses import decode_items, parse_json

__all__ = ["figures"]

_ITEMS = 100
_CALLS = 50


def figures() -> Iterator[Figure]:
    """Yield the time for the page, and what share of it is JSON."""
    items = [{**CANDIDATE, "id": f"{CANDIDATE['id']}-{number}"} for number in range(_ITEMS)]
    body = json.dumps({"data": {"candidates": items}, "meta": {}}).encode()

    def decode() -> tuple[Candidate, ...]:
        return decode_items(parse_json(body, is_write=False), "candidates", Candidate)

    if len(decode()) != _ITEMS:
        raise AssertionError("the page wasn't decoded")
    ours = min(timeit.repeat(decode, number=_CALLS, repeat=15)) / _CALLS
    bare = min(timeit.repeat(lambda: json.loads(body), number=_CALLS, repeat=15)) / _CALLS
    yield Figure(
        name=f"page of {_ITEMS} candidates decoded",
        value=f"{ours * 1e6:.0f} us = {ours / bare:.1f} x json",
    )
