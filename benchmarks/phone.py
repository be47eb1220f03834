"""What the phone guard costs."""

import timeit
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.figure import Figure
from gather_async.phone import PhonePolicy, to_e164

__all__ = ["figures"]

_TARGET = 10e-6


def _seconds(call: Callable[[], object]) -> float:
    """Return the seconds of one call, from the quickest of many rounds."""
    return min(timeit.repeat(call, number=2000, repeat=15)) / 2000


def figures() -> Iterator[Figure]:
    """Yield the cost at each policy; only the default one has a target."""
    clean = {
        "E.164": "+1234567890",
        "a prefix's digit first": "+78005553535",
        "the longest pattern": "+5491123456789",
        "punctuated": "+1 (202) 555-0123",
    }
    for label, raw in clean.items():
        seconds = _seconds(partial(to_e164, raw))
        yield Figure(
            name=f"phone guard, default policy, {label}",
            value=f"{seconds * 1e6:.2f} us",
            target=f"<= {_TARGET * 1e6:.0f} us",
            ok=seconds <= _TARGET,
        )
    for policy in (PhonePolicy.POSSIBLE, PhonePolicy.VALID):
        seconds = _seconds(partial(to_e164, "+12025550123", policy=policy))
        yield Figure(name=f"phone guard, {policy.name}", value=f"{seconds * 1e6:.1f} us")
