"""Writes over a server that commits late and lists late: nothing is done twice."""

import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from itertools import product
from typing import Any

import pytest
from attrs import field, frozen

from gather_async import ConfigurationError, GatherClient, GatherError, RetryPolicy
from gather_async.testing import FakeGather, VirtualClock

_LOG = logging.getLogger(__name__)
PERSON: dict[str, Any] = {
    "first_name": "Ada",
    "last_name": "Doe",
    "email": "ada@example.com",
    "phone": "+12025550123",
}
PATIENT = RetryPolicy(in_flight_timeout=90.0, total=300.0)


@frozen
class Ids:
    """What the writes build on."""

    candidate: str
    interview: str
    other_interview: str
    """One that the candidate has no invite to."""
    invite: str


@frozen
class Write:
    """One write operation, and how often the server carried it out."""

    name: str
    call: Callable[[GatherClient, FakeGather, Ids], Awaitable[Any]] = field(repr=False)
    count: Callable[[FakeGather, Ids], int] = field(repr=False)
    is_found: bool = False
    """Whether what it made can be looked up."""

    def __str__(self) -> str:
        return self.name


def _processed(method: str, path: str) -> Callable[[FakeGather, Ids], int]:
    """Return what counts the objects or changes by the requests that were carried out."""

    def count(fake: FakeGather, _: Ids) -> int:
        return sum(
            each.method == method and each.path.endswith(path) and each.was_processed
            for each in fake.requests
        )

    return count


WRITES = [
    Write(
        "candidate",
        lambda g, f, i: g.candidates.create(**PERSON, external_id="ref"),
        lambda f, i: sum(each["externalId"] == "ref" for each in f.candidates),
        is_found=True,
    ),
    Write(
        "candidate found or created",
        lambda g, f, i: g.candidates.get_or_create(**PERSON, external_id="ref"),
        lambda f, i: sum(each["externalId"] == "ref" for each in f.candidates),
        is_found=True,
    ),
    Write(
        "invite",
        lambda g, f, i: g.candidate_interviews.create(
            candidate_id=i.candidate,
            interview_id=i.interview,
            send_invite=True,
            delivery_types=["email"],
        ),
        lambda f, i: f.invites[i.candidate, i.interview] - 1,
        is_found=True,
    ),
    Write(
        "invite found or created",
        lambda g, f, i: g.candidate_interviews.get_or_create(
            candidate_id=i.candidate,
            interview_id=i.other_interview,
            send_invite=True,
            delivery_types=["email"],
        ),
        lambda f, i: f.invites[i.candidate, i.other_interview],
        is_found=True,
    ),
    Write(
        "anonymous candidate",
        lambda g, f, i: g.candidates.create(**PERSON),
        lambda f, i: len(f.candidates) - 1,
    ),
    Write(
        "question",
        lambda g, f, i: g.questions.create(title="x", user_id=f.user_id),
        lambda f, i: len(f.questions) - 1,
    ),
    Write(
        "interview",
        lambda g, f, i: g.interviews.create(title="x"),
        lambda f, i: len(f.interviews) - 2,
    ),
    Write(
        "resent invite",
        lambda g, f, i: g.candidate_interviews.resend_invite(i.invite, delivery_types=["email"]),
        lambda f, i: f.invites[i.candidate, i.interview] - 1,
    ),
    Write(
        "status",
        lambda g, f, i: g.candidate_interviews.update_status(i.invite, "hired"),
        lambda f, i: int(f.candidate_interviews[0]["status"] == "hired"),
    ),
    Write(
        "team",
        lambda g, f, i: g.teams.create(name="x"),
        _processed("POST", "/teams"),
    ),
]
FAULTS = {
    "500": lambda f, **when: f.fail_next(500, method="POST", **when),
    "502": lambda f, **when: f.fail_next(502, method="POST", **when),
    "503": lambda f, **when: f.fail_next(503, method="POST", **when),
    "504": lambda f, **when: f.fail_next(504, method="POST", **when),
    "408": lambda f, **when: f.fail_next(408, method="POST", **when),
    "cut": lambda f, **when: f.drop_next(method="POST", **when),
}


@frozen
class Outcome:
    """What one call came to."""

    times: int
    """How often the server carried it out."""
    seconds: float
    requests: int
    error: GatherError | None


async def attempt(
    write: Write, fault: str, *, delay: float, lag: float, retry: RetryPolicy | None = None
) -> Outcome:
    """Make one call whose first request meets a gateway that gives up at once.

    Args:
        write: The operation.
        fault: What the gateway answers.
        delay: Seconds after which the backend commits; ``inf``: never.
        lag: Seconds after which a list shows what is new.
        retry: The client's policy.
    """
    clock = VirtualClock()
    async with FakeGather(clock=clock) as fake:
        async with fake.client(rng=random.Random(1)) as gather:
            await gather.questions.create(title="q", user_id=fake.user_id)
            interview = (await gather.interviews.create(title="i")).id
            second = (await gather.interviews.create(title="j")).id
            candidate = (await gather.candidates.create(**{**PERSON, "email": "e@e.example"})).id
            first = await gather.candidate_interviews.create(
                candidate_id=candidate,
                interview_id=interview,
                send_invite=True,
                delivery_types=["email"],
            )
            ids = Ids(candidate, interview, second, first.id)
        await clock.sleep(3600)
        fake.clear_requests()
        fake.set_list_lag(lag)
        when: dict[str, Any] = (
            {"after_processing": False} if delay == math.inf else {"commit_after": delay}
        )
        if write.name == "status":
            fake.fail_next(504, method="PATCH", **when)
        else:
            FAULTS[fault](fake, **when)
        began, error = clock.monotonic(), None
        options = {} if retry is None else {"retry": retry}
        async with fake.client(rng=random.Random(1), **options) as gather:  # a process of its own
            try:
                await write.call(gather, fake, ids)
            except GatherError as caught:
                error = caught
        seconds, requests = clock.monotonic() - began, len(fake.requests)
        await clock.sleep(300)  # whatever is late has come by then
        return Outcome(write.count(fake, ids), seconds, requests, error)


def check(write: Write, outcome: Outcome, *, delay: float) -> None:
    """Hold one call's outcome against the promise."""
    if write.is_found:
        assert outcome.error is None
        assert outcome.times == 1
        return
    assert outcome.error is not None
    assert getattr(outcome.error, "maybe_processed", False)
    if write.name != "team":  # a late commit isn't in the log of requests
        assert outcome.times == (delay < math.inf)
    assert outcome.requests == 1


@pytest.mark.parametrize("write", WRITES, ids=str)
@pytest.mark.parametrize(("delay", "lag"), [(3.0, 0.0), (0.0, 10.0), (40.0, 3.0), (math.inf, 0.0)])
async def test_late_server_carries_no_write_out_twice(
    write: Write, delay: float, lag: float
) -> None:
    """Whatever is late by less than the in-flight timeout is found, and never made again."""
    check(write, await attempt(write, "504", delay=delay, lag=lag), delay=delay)


async def test_patience_is_the_callers_to_choose() -> None:
    """Commits and lists that are late by more together take a longer in-flight timeout."""
    candidate = WRITES[0]
    impatient = await attempt(candidate, "504", delay=40.0, lag=40.0)
    assert impatient.times == 2  # not promised: it showed up after 80 s
    patient = await attempt(candidate, "504", delay=40.0, lag=40.0, retry=PATIENT)
    assert (patient.times, patient.error) == (1, None)


def every_case() -> Iterator[tuple[Write, str, float, float]]:
    """Give each write, fault, delay and lag that the default policy covers."""
    for write, fault, delay, lag in product(
        WRITES, FAULTS, (0.0, 3.0, 10.0, 40.0, math.inf), (0.0, 3.0, 10.0, 40.0)
    ):
        if delay == math.inf or delay + lag < 45.0:
            yield write, fault, delay, lag


@pytest.mark.parametrize("seconds", [-1.0, math.nan, "3", True])
async def test_a_delay_that_is_no_time_is_refused(seconds: Any) -> None:
    """Neither a late commit nor a late list takes what isn't seconds from 0."""
    fake = FakeGather()
    for ask in (
        lambda: fake.fail_next(504, commit_after=seconds),
        lambda: fake.drop_next(commit_after=seconds),
        lambda: fake.set_list_lag(seconds),
    ):
        with pytest.raises(ConfigurationError):
            ask()  # type: ignore[no-untyped-call]  # their arguments are wrong on purpose


async def test_late_commits_and_lists_end_with_the_faults_and_the_server() -> None:
    """A server that closes carries nothing out any more; clear_faults ends the lag."""
    clock = VirtualClock()
    async with FakeGather(clock=clock) as fake, fake.client() as gather:
        fake.set_list_lag(10.0)
        await gather.candidates.create(**PERSON)
        assert not (await gather.candidates.list()).items
        fake.clear_faults()
        assert len((await gather.candidates.list()).items) == 1
        fake.fail_next(504, method="POST", commit_after=5.0)
        with pytest.raises(GatherError):
            await gather.candidates.create(**PERSON)
        await fake.aclose()
        await clock.sleep(10.0)
    assert len(fake.candidates) == 1
    assert clock.sleepers == 0


@pytest.mark.slow
async def test_every_write_every_fault_every_delay() -> None:
    """The whole table; what is looked up takes no longer than it may be late, and few requests.

    ``--log-cli-level=INFO`` shows the figures.
    """
    outcomes = []
    for write, fault, delay, lag in every_case():
        outcome = await attempt(write, fault, delay=delay, lag=lag)
        check(write, outcome, delay=delay)
        if write.is_found:
            outcomes.append(outcome)
    seconds = sorted(each.seconds for each in outcomes)
    requests = sorted(each.requests for each in outcomes)
    for name, values in (("seconds", seconds), ("requests", requests)):
        middle, most = values[len(values) // 2], values[-1]
        _LOG.info("%d calls: %s: median %.1f, most %.1f", len(values), name, middle, most)
    assert seconds[-1] < 47.0
    assert requests[-1] <= 10
