"""Which request of the fake server meets which fault."""

import math
import random

import pytest

from gather_async.errors import ConfigurationError
from gather_async.testing.fake.faults import Fault, FaultKind, FaultPlan, shares_of

CUT = Fault(kind=FaultKind.CUT)
ERROR = Fault(kind=FaultKind.STATUS, status=502, after_processing=False)


def plan(seed: int = 0) -> FaultPlan:
    """An empty plan."""
    return FaultPlan(random.Random(seed))


def test_a_fault_is_met_as_often_as_planned() -> None:
    """Two times means the next two requests, and no third."""
    faults = plan()
    faults.add(CUT, times=2, path=None, method=None)
    assert [faults.next("GET", "/a") for _ in range(3)] == [CUT, CUT, None]


def test_a_fault_without_end_stays() -> None:
    """``math.inf`` times means every request."""
    faults = plan()
    faults.add(CUT, times=math.inf, path=None, method=None)
    assert all(faults.next("GET", "/a") is CUT for _ in range(100))
    faults.clear()
    assert faults.next("GET", "/a") is None


def test_a_path_is_whole_unless_it_has_a_star() -> None:
    """The candidates' path is neither a candidate's nor the candidate interviews'."""
    faults = plan()
    faults.add(CUT, times=1, path="/qsi/gather/candidates", method=None)
    faults.add(ERROR, times=1, path="/qsi/gather/questions/*", method=None)
    assert faults.next("GET", "/qsi/gather/candidate-interviews") is None
    assert faults.next("GET", "/qsi/gather/candidates/1") is None
    assert faults.next("GET", "/qsi/gather/questions") is None
    assert faults.next("GET", "/qsi/gather/questions/1") is ERROR
    assert faults.next("POST", "/qsi/gather/candidates") is CUT


def test_a_method_is_met_in_any_case_of_letters() -> None:
    """``post`` means POST, and a GET passes."""
    faults = plan()
    faults.add(CUT, times=1, path=None, method="post")
    assert faults.next("GET", "/a") is None
    assert faults.next("POST", "/a") is CUT


def test_planned_faults_come_in_their_order() -> None:
    """The first fault that fits is met first."""
    faults = plan()
    faults.add(ERROR, times=1, path=None, method=None)
    faults.add(CUT, times=1, path=None, method=None)
    assert [faults.next("GET", "/a") for _ in range(3)] == [ERROR, CUT, None]


def test_chance_is_repeatable_and_keeps_its_shares() -> None:
    """One seed gives one sequence, and the shares are met in the long run."""
    mix = shares_of(errors_500=0.1, cut_after=0.2, cut_before=0.0)
    runs = []
    for _ in range(2):
        faults = plan(seed=7)
        faults.mix(mix)
        runs.append([faults.next("GET", "/a") for _ in range(5000)])
    assert runs[0] == runs[1]
    counts = {fault: runs[0].count(fault) / 5000 for fault in mix}
    assert len(counts) == 2
    assert all(abs(counts[fault] - share) < 0.02 for fault, share in mix.items())


def test_an_empty_mix_ends_chance() -> None:
    """After ``mix({})`` nothing goes wrong."""
    faults = plan()
    faults.mix({CUT: 1.0})
    assert faults.next("GET", "/a") is CUT
    faults.mix({})
    assert faults.next("GET", "/a") is None


@pytest.mark.parametrize("mix", [{CUT: -0.1}, {CUT: 0.6, ERROR: 0.5}, {CUT: math.nan}])
def test_an_impossible_mix_is_refused(mix: dict[Fault, float]) -> None:
    """Shares are from 0 to 1 in sum."""
    with pytest.raises(ConfigurationError):
        plan().mix(mix)


@pytest.mark.parametrize(("times", "path"), [(0, None), (-1, None), (math.nan, None), (1, "x")])
def test_an_impossible_plan_is_refused(times: float, path: str | None) -> None:
    """At least one request, and a path that a request can have."""
    with pytest.raises(ConfigurationError):
        plan().add(CUT, times=times, path=path, method=None)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (CUT, "cut after processing"),
        (ERROR, "status 502 before processing"),
        (Fault(kind=FaultKind.SLOW, seconds=2.0), "slow by 2.0 s after processing"),
    ],
)
def test_a_fault_has_a_name_for_the_log(fault: Fault, name: str) -> None:
    """The log of requests says in words what went wrong."""
    assert str(fault) == name
