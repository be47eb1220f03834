"""The limiter's script held against the rules of one process, and against a server that counts."""

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from gather_async.protocol.rolling_windows import RateLimit, RollingWindows
from gather_async.quota.priority_queue import PriorityScheduler
from gather_async.redis.step import EndedRequest, WaitingCalls, step_arguments
from tests.integration.redis.script_process import NAMES, TICK, ScriptProcess
from tests.servers import RedisServer

_LEASE = 5.0


@pytest.fixture(scope="module")
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A synchronous client."""
    if not redis_server.is_running:
        redis_server.start()
    with redis.Redis.from_url(redis_server.url) as made:
        made.ping()
        yield made


_LIMITS = st.lists(
    st.tuples(st.integers(1, 8), st.integers(1, 40)),
    min_size=1,
    max_size=3,
    unique_by=lambda each: each[1],
)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["interactive", "bulk", "both", "answer", "return", "pass", "elsewhere"]),
        st.integers(1, 8),
        st.integers(0, 30 * 64),
    ),
    max_size=50,
)


@given(_LIMITS, _STEPS, st.integers(0, 3), st.booleans())
@example(
    # Interactive calls are paused, and bulk waits for an answer.
    limits=[(3, 1)],
    steps=[
        *(("interactive", count, 0) for count in (1, 6)),
        ("both", 1, 0),
        ("answer", 3, 0),
        ("pass", 1, 640),
        *[("answer", 1, 0)] * 2,
        ("pass", 1, 63),
    ],
    reserve=0,
    even=False,
)
def test_one_process_gets_what_it_would_get_alone(  # noqa: C901 - a branch for each kind of step
    client: redis.Redis, limits: Any, steps: Any, reserve: int, even: bool
) -> None:
    """Any history: the same slots for the same priorities, and the same next instant."""
    process = ScriptProcess(client, f"q{next(NAMES)}", limits, reserve=reserve, even=even)
    windows = RollingWindows([RateLimit(*each) for each in limits], reserve=reserve)
    scheduler = PriorityScheduler(windows, even=even)
    now, waiting_i, waiting_b = 1000.0, 0, 0
    for kind, count, ticks in steps:
        now += TICK
        answers: list[float] = []
        if kind in {"interactive", "both"}:
            waiting_i += count
        if kind in {"bulk", "both"}:
            waiting_b += count
        if kind == "pass":
            now += ticks * TICK
        if kind == "answer":
            answers = [now] * min(count, windows.in_flight)
            process.flying -= len(answers)
            windows.answered(now, len(answers))
        if kind == "return":
            gone = min(count, windows.in_flight)
            process.flying -= gone
            windows.returned(gone)
        if kind == "elsewhere":
            for each in (windows.windows[0], process.windows.windows[0]):
                each.external, each.external_until = count, now + ticks * TICK
                each.probe_at = now + ticks * TICK / 2
        expected = [0, 0]
        while (turn := scheduler.next(now, waiting_i > 0, waiting_b > 0)) is not None:
            bulk = turn == "bulk"
            waiting_i, waiting_b = waiting_i - (not bulk), waiting_b - bulk
            expected[bulk] += 1
            windows.sent()
            scheduler.started(now, bulk=bulk, bulk_waits=waiting_b > 0)
        asked = {"i": waiting_i + expected[0], "b": waiting_b + expected[1]}
        assert process.step(now, **asked, answers=answers) == tuple(expected)
        if waiting_i or waiting_b:
            at = scheduler.next_at(now, waiting_i > 0, waiting_b > 0)
            free_at = [windows.free_at(now, bulk=bulk) for bulk in (False, True)]
            if math.inf not in (free_at[0] if waiting_i else 0.0, free_at[1] if waiting_b else 0.0):
                assert process.state.wake == pytest.approx(at, abs=2e-6)
            else:  # it depends on an answer, too, which then counts for a window
                earliest = now + min(each[1] for each in limits)
                assert min(at, earliest) - 2e-6 <= process.state.wake <= at + 2e-6


@given(
    _LIMITS,
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["ask", "answer", "return", "die", "pass", "lost reply", "flush"]),
            st.integers(1, 8),
            st.integers(0, 12),
        ),
        max_size=60,
    ),
    st.randoms(use_true_random=False),
)
def test_no_server_ever_counts_too_many(  # noqa: C901, PLR0912 - a branch for each kind of step
    client: redis.Redis, limits: Any, steps: Any, rng: random.Random
) -> None:
    """However processes ask, answer, die and lose replies, and the state is lost in between.

    The server stamps each request at any time between its slot and its answer; one of a
    process that died, until its lease ends. What such a process had in flight is unknown to
    all others if the state is lost before that.
    """
    quota = f"q{next(NAMES)}"
    processes: dict[int, tuple[ScriptProcess, list[float]]] = {}
    now, stamps = 10_000.0, []
    dead: list[tuple[float, list[float]]] = []  # when a process died, and its requests
    for which, kind, count, seconds in steps:
        if which not in processes:
            processes[which] = ScriptProcess(client, quota, limits, lease=_LEASE), []
        process, flying = processes[which]
        target = now + (seconds if kind == "pass" else TICK)
        while now < target:  # all that live renew their leases
            now = min(target, now + _LEASE / 3)
            for living, _ in processes.values():
                living.retry(now)
        if kind in {"ask", "lost reply"}:
            before = process.flying
            got, _ = process.retry(now, i=count)
            if kind == "ask":
                flying += [now] * got
            else:  # granted, and the process never knew
                process.flying = before
        elif kind == "answer" and flying:
            answered = [flying.pop(0) for _ in range(min(count, len(flying)))]
            now += TICK
            stamps += [rng.uniform(sent, now) for sent in answered]
            process.flying -= len(answered)
            process.retry(now + TICK, answers=[now] * len(answered))
            now += TICK
        elif kind == "return" and flying:
            flying.pop()
            process.flying -= 1
            process.retry(now)
        elif kind == "die":
            dead.append((now, [rng.uniform(sent, now) for sent in flying]))
            del processes[which]
        elif kind == "flush":
            dead = [(died_at, sent) for died_at, sent in dead if died_at <= now - _LEASE]
            for part in ("log", "state", "procs"):
                client.delete(f"{{{quota}}}:{part}")
            for living, _ in processes.values():  # each renews its lease before any slot
                living.retry(now)
    stamps = sorted(stamps + [at for _, sent in dead for at in sent])
    for limit, period in limits:
        pairs = zip(stamps, stamps[limit:], strict=False)
        assert all(later - first >= period for first, later in pairs)


def test_a_step_that_comes_late_changes_nothing(client: redis.Redis) -> None:
    """A call that a later one of its process overtook has no effect, and says so."""
    process = ScriptProcess(client, f"q{next(NAMES)}", [(3, 60)])
    process.step(1000.0, i=1)
    process.number += 1
    process.step(1001.0, i=1)
    state = {key: client.dump(key) for key in client.keys("{q*")}
    process.number -= 2
    assert process.ask(1002.0, i=1) == [b"late"]
    assert {key: client.dump(key) for key in client.keys("{q*")} == state


def test_an_answer_whose_report_was_lost_counts_once(client: redis.Redis) -> None:
    """A report that was carried out, and whose reply was lost, is repeated without effect."""
    process = ScriptProcess(client, f"q{next(NAMES)}", [(3, 60)])
    process.step(1000.0, i=2)
    process.flying -= 1
    process.ask(1001.0, answers=[1001.0])
    first = process.number
    process.number += 1
    arguments = step_arguments(
        process.state,
        process._settings,
        process=process.name,
        number=process.number,
        now=1002.0,
        flying=process.flying,
        waiting=WaitingCalls(5, 0),
        ended=[EndedRequest(first, 1001.0)],
    )
    reply = process.run([round(1002e6), *arguments[1:]])
    assert process.state.record(reply, asked_at=1002.0, flying=process.flying)
    assert sum(count for _, count in process.state.granted) == 1
    assert process.windows.count(0.0) == 1


def test_a_dead_process_slots_count_until_its_lease_ends_and_a_window_more(
    client: redis.Redis,
) -> None:
    """All that it had in flight counts as answered at the end of its lease."""
    quota = f"q{next(NAMES)}"
    dead = ScriptProcess(client, quota, [(3, 60)], lease=_LEASE)
    alive = ScriptProcess(client, quota, [(3, 60)], lease=_LEASE)
    assert dead.step(1000.0, i=3) == (3, 0)
    assert alive.step(1000.0 + _LEASE, i=3) == (0, 0)
    assert alive.step(1001.0 + _LEASE, i=3) == (0, 0)
    assert alive.step(1059.9 + _LEASE, i=3) == (0, 0)
    assert alive.step(1060.0 + _LEASE, i=3) == (3, 0)


def test_slots_go_to_who_was_served_least(client: redis.Redis) -> None:
    """Three processes that always want all get about a third each, in whatever order they come."""
    quota, rng = f"q{next(NAMES)}", random.Random(3)
    processes = [ScriptProcess(client, quota, [(6, 1)]) for _ in range(3)]
    got, now = dict.fromkeys(range(3), 0), 1000.0
    for _ in range(400):
        now += 1 / 16
        which = rng.randrange(3)
        process = processes[which]
        answers = [now] * process.flying
        process.flying = 0
        taken, _ = process.step(now, i=16, answers=answers)
        got[which] += taken
    assert sum(got.values()) > 100
    assert max(got.values()) <= 1.5 * min(got.values())


@pytest.mark.parametrize("limit", [(20, 10), pytest.param((100, 60), marks=pytest.mark.slow)])
def test_bulk_gets_as_much_of_other_processes_as_of_its_own(
    client: redis.Redis, limit: tuple[int, float]
) -> None:
    """Under endless interactive load elsewhere bulk work gets what it would get in one process."""

    def bulk_share(*asked: dict[str, int]) -> float:
        quota, rng = f"q{next(NAMES)}", random.Random(7)
        options = {"reserve": 5, "patience": 0.3}  # they come every quarter of a second
        processes = [(ScriptProcess(client, quota, [limit], **options), each) for each in asked]
        got, now = [0, 0], 1000.0
        while sum(got) < 1000:
            now += 1 / 4
            rng.shuffle(processes)
            for process, waiting in processes:
                answers = [now] * process.flying
                process.flying = 0
                for index, count in enumerate(process.step(now, **waiting, answers=answers)):
                    got[index] += count
        return got[1] / sum(got)

    alone = bulk_share({"i": 300, "b": 300})
    assert 0.01 < alone < 0.25  # endless: no process ever has all that it wants
    assert bulk_share({"i": 300}, {"b": 300}) == pytest.approx(alone, abs=0.05)


def test_a_clock_that_is_set_back_goes_on(client: redis.Redis) -> None:
    """The server's clock may jump back: nothing is held longer for it."""
    process = ScriptProcess(client, f"q{next(NAMES)}", [(1, 10)])
    assert process.step(1000.0, i=1) == (1, 0)
    process.flying = 0
    assert process.step(1001.0, i=1, answers=[1001.0]) == (0, 0)
    assert process.step(500.0, i=1) == (0, 0)
    assert process.step(511.0, i=1) == (1, 0)
