"""Faults on demand: single ones by path, or a seeded random mix."""

import math
import random
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from attrs import define, field, frozen

from gather_async.errors import ConfigurationError
from gather_async.validators import Number

__all__ = ["Fault", "FaultKind", "FaultPlan", "shares_of"]


class FaultKind(StrEnum):
    """Kind of a fault."""

    STATUS = "status"
    """An error envelope with a status of your choice."""
    HTML = "html"
    """An error page of a proxy, instead of JSON."""
    CUT = "cut"
    """The connection is cut and no byte of the answer is sent."""
    TRUNCATE = "truncate"
    """Half of the body, then the connection is cut."""
    SLOW = "slow"
    """The right answer, late."""


@frozen(kw_only=True)
class Fault:
    """One fault of an exchange.

    Attributes:
        kind: What happens to the answer.
        after_processing: True if the request is carried out first.
        commit_after: Seconds after the answer at which it is carried out nonetheless, on the
            server's clock, as behind a gateway that gives up early; None: never.
        status: For ``STATUS`` and ``HTML``.
        seconds: For ``SLOW``, on the server's clock.
        headers: Sent along, such as ``Retry-After``.
        code: The error code; None takes the documented one of the status.
    """

    kind: FaultKind
    after_processing: bool = True
    commit_after: float | None = None
    status: int = 500
    seconds: float = 0.0
    headers: Mapping[str, str] = field(factory=dict, hash=False)
    code: str | None = None

    def __str__(self) -> str:
        """Return a short name for the log of requests."""
        when = "after" if self.after_processing else "before"
        if self.commit_after is not None:
            when = f"{self.commit_after} s before"
        if self.kind in {FaultKind.STATUS, FaultKind.HTML}:
            return f"{self.kind} {self.status} {when} processing"
        if self.kind is FaultKind.SLOW:
            return f"slow by {self.seconds} s {when} processing"
        return f"{self.kind} {when} processing"


@define
class _Planned:
    """A fault that waits for its requests."""

    fault: Fault
    times: float
    path: str | None
    method: str | None

    def fits(self, method: str, path: str) -> bool:
        if self.method is not None and self.method != method:
            return False
        return self.path is None or self.path == path or fnmatchcase(path, self.path)


class FaultPlan:
    """Plan of the faults. Planned ones come first, then random ones."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._planned: list[_Planned] = []
        self._mix: tuple[tuple[float, Fault], ...] = ()

    def add(self, fault: Fault, *, times: float, path: str | None, method: str | None) -> None:
        """Let the next requests that fit go wrong."""
        Number(least=1, most=math.inf).check("times", times)
        if path is not None and not path.startswith(("/", "*")):
            raise ConfigurationError("path starts with / and may hold *, as in a file pattern.")
        method = method.upper() if method else None
        self._planned.append(_Planned(fault, times, path, method))

    def mix(self, shares: Mapping[Fault, float]) -> None:
        """Let each request go wrong by chance; an empty mapping ends it.

        Raises:
            ConfigurationError: A share is negative, or they exceed 1 in sum.
        """
        total, bounds = 0.0, []
        for fault, share in shares.items():
            Number(least=0).check(f"The share of {fault}", share)
            total += share
            bounds.append((total, fault))
        if total > 1:
            raise ConfigurationError(f"The shares add up to {total}, which is more than 1.")
        self._mix = tuple(bounds)

    def clear(self) -> None:
        """Forget all faults, planned and by chance."""
        self._planned.clear()
        self._mix = ()

    def next(self, method: str, path: str) -> Fault | None:
        """Return the fault of the request that arrives now."""
        for planned in self._planned:
            if planned.fits(method, path):
                planned.times -= 1
                if planned.times < 1:
                    self._planned.remove(planned)
                return planned.fault
        if self._mix:
            draw = self._rng.random()
            return next((fault for bound, fault in self._mix if draw < bound), None)
        return None

    def __repr__(self) -> str:
        return f"<FaultPlan {len(self._planned)} planned, {len(self._mix)} by chance>"


def shares_of(**given: Any) -> dict[Fault, float]:
    """Return the mix that `FakeGather.chaos` was asked for, without the zeros."""
    kinds = {
        "errors_500": Fault(kind=FaultKind.STATUS, after_processing=False),
        "errors_500_after": Fault(kind=FaultKind.STATUS, after_processing=True),
        "html_503": Fault(kind=FaultKind.HTML, status=503, after_processing=False),
        "cut_before": Fault(kind=FaultKind.CUT, after_processing=False),
        "cut_after": Fault(kind=FaultKind.CUT, after_processing=True),
        "truncated": Fault(kind=FaultKind.TRUNCATE),
    }
    return {kinds[name]: share for name, share in given.items() if share}
