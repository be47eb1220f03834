"""What polls may use, and how first polls are let through."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async import RateLimit
from gather_async.protocol.polling import LeakyBucket, PollBudget

DOCUMENTED = (RateLimit(100, per=60), RateLimit(1000, per=3600))


def spend_all(
    budget: PollBudget, until: float, *, is_page: bool, share: float = 0.2
) -> list[float]:
    """Poll as often as allowed; return when."""
    now = 0.0
    spent: list[float] = []
    while True:
        wait = budget.wait(now, share, is_page=is_page)
        if wait > 0:
            now += max(wait, 0.001)
        if now > until:
            return spent
        if wait <= 0:
            budget.spend(now, share, is_page=is_page)
            spent.append(now)


def most_within(times: list[float], seconds: float) -> int:
    """Return the largest number of instants in any window of that length."""
    return max(sum(1 for each in times if start <= each < start + seconds) for start in times)


def test_single_reads_keep_to_a_fifth_of_each_window() -> None:
    """However many wait, single reads use 20 of 100 a minute and 200 of 1000 an hour at most."""
    spent = spend_all(PollBudget(lambda: DOCUMENTED), 2 * 3600, is_page=False)
    assert most_within(spent, 60.0) == 20
    assert 190 <= most_within(spent, 3600.0) <= 201


def test_pages_may_use_what_earlier_minutes_left() -> None:
    """Pages use up to two fifths of one minute, and a fifth of the hour all the same."""
    spent = spend_all(PollBudget(lambda: DOCUMENTED), 3600, is_page=True)
    assert most_within(spent, 60.0) == 40
    assert len(spent) <= 201


def test_pages_keep_to_the_share_where_only_a_minute_is_limited() -> None:
    """Two fifths of one minute are made up for: half an hour of pages takes a fifth of it."""
    spent = spend_all(PollBudget(lambda: DOCUMENTED[:1]), 1800, is_page=True)
    assert most_within(spent, 60.0) == 40
    saved = 4 * 20  # what may be unused when it begins
    assert 600 <= len(spent) <= 600 + saved


def test_an_hour_of_waiting_leaves_no_long_silence() -> None:
    """When the hour's share is nearly used up, looks go on, some 72 seconds apart."""
    spent = spend_all(PollBudget(lambda: DOCUMENTED), 3 * 3600, is_page=False)
    gaps = [late - early for early, late in pairwise(spent)]
    assert max(gaps) < 75.0


def test_reads_that_an_event_asked_for_count() -> None:
    """What was sent without asking is missing from what may be sent."""
    budget = PollBudget(lambda: DOCUMENTED)
    for _ in range(30):
        budget.spend(0.0, 0.2, is_page=False)
    assert budget.wait(1.0, 0.2, is_page=False) > 58.0
    assert budget.wait(1.0, 0.2, is_page=True) == 0.0


@given(
    limit=st.integers(1, 2000),
    per=st.floats(0.5, 60.0),
    share=st.floats(0.01, 1.0),
    is_page=st.booleans(),
)
def test_no_window_sees_more_than_its_share(
    limit: int, per: float, share: float, is_page: bool
) -> None:
    """Single reads keep to the share of any short window; pages to twice that."""
    budget = PollBudget(lambda: [RateLimit(limit, per=per)])
    now = 0.0
    spent: list[float] = []
    while now <= 2 * per and len(spent) < 150:
        wait = budget.wait(now, share, is_page=is_page)
        if wait > 0:
            now += max(wait, 0.001)
            continue
        budget.spend(now, share, is_page=is_page)
        spent.append(now)
    ceiling = max(1, int(limit * share * (2 if is_page else 1)))
    assert most_within(spent, per - 0.001) <= ceiling


def test_cheap_looks_are_not_slowed_and_dear_ones_are() -> None:
    """After a first look, ten pages are read every 15 s, twenty every 30; two as often as due."""
    for cost, pace in [(1, 0.0), (2, 0.0), (10, 15.0), (20, 30.0)]:
        budget = PollBudget(lambda: DOCUMENTED)
        for _ in range(cost):
            budget.spend(0.0, 0.2, is_page=True)
        assert budget.pace(cost, 0.0, 0.2) == pytest.approx(pace)


def test_a_leaky_bucket_takes_five_then_one_an_interval() -> None:
    """Waits that begin in a row share first polls instead of having one each."""
    bucket, passed = LeakyBucket(), []
    for tick in range(300):
        now = tick / 100
        if bucket.take(now, rate=1.0, burst=5) == 0.0:
            passed.append(now)
    assert passed[:5] == [0.0, 0.01, 0.02, 0.03, 0.04]
    assert len(passed) == 7


def test_a_leaky_bucket_says_when_there_is_room() -> None:
    """The seconds it names are enough, and less isn't."""
    bucket = LeakyBucket()
    while bucket.take(10.0, rate=0.5, burst=5) == 0.0:
        pass
    delay = bucket.wait(10.0, rate=0.5, burst=5)
    assert 0.0 < delay <= 2.0
    assert bucket.wait(10.0 + delay * 0.9, rate=0.5, burst=5) > 0.0
    assert bucket.wait(10.0 + delay, rate=0.5, burst=5) == 0.0


def test_reads_without_need_leave_half_of_each_share() -> None:
    """A read that nothing is due for is made while polls have used less than half a share."""
    budget, now, reads = PollBudget(lambda: DOCUMENTED), 0.0, 0
    while now < 3600.0:
        if budget.has_spare(now, 0.2):
            budget.spend(now, 0.2, is_page=False)
            reads += 1
        now += 1.0
    assert 75 <= reads <= 75 + 51
    assert budget.pace(2, now, 0.2) == 0.0


def test_a_leaky_bucket_saves_nothing_up() -> None:
    """After a long rest as many fit in as at the beginning."""
    bucket = LeakyBucket()
    bucket.add(0.0, rate=1.0)
    passed = sum(bucket.take(1000.0, rate=1.0, burst=5) == 0.0 for _ in range(10))
    assert passed == 5


@given(now=st.floats(0.0, 1e6), rate=st.floats(0.01, 10.0), burst=st.floats(1.0, 50.0))
def test_a_leaky_bucket_has_room_when_it_said_so(now: float, rate: float, burst: float) -> None:
    """Who waits as long as it says is not sent away again for a rounding error."""
    bucket = LeakyBucket()
    for _ in range(5):
        now += bucket.wait(now, rate=rate, burst=burst)
        assert bucket.take(now, rate=rate, burst=burst) == 0.0


def test_what_was_spent_long_ago_is_forgotten() -> None:
    """A budget remembers the polls of a minute."""
    budget = PollBudget(lambda: DOCUMENTED)
    for now in range(1000):
        budget.spend(float(now), 0.2, is_page=False)
    assert len(budget._polls) <= 61
    assert len(budget._reads) <= 61


def test_a_share_of_less_than_a_poll_is_a_poll() -> None:
    """However small the share is, each window lets one poll through."""
    spent = spend_all(PollBudget(lambda: [RateLimit(10, per=60)]), 3600, is_page=True, share=0.01)
    assert 55 <= len(spent) <= 61


def test_sweeps_go_on_after_events_used_more_than_the_share() -> None:
    """What was spent beyond a share makes the next sweep as late as a share that is used up."""
    budget = PollBudget(lambda: DOCUMENTED[1:])
    for _ in range(1000):
        budget.spend(0.0, 0.2, is_page=False)
    assert budget.pace(1, 0.0, 0.2) == pytest.approx(72.0)


def test_reads_without_need_wait_for_those_that_are_needed() -> None:
    """While single reads have used up their minute, there is nothing to spare."""
    budget = PollBudget(lambda: DOCUMENTED)
    for _ in range(20):
        budget.spend(0.0, 0.2, is_page=False)
    assert not budget.has_spare(1.0, 0.2)
    assert budget.has_spare(61.0, 0.2)


def test_without_a_brief_window_urgent_polls_are_a_second_apart() -> None:
    """A limit of an hour alone says nothing of how many polls may come at once."""
    assert PollBudget(lambda: DOCUMENTED[1:]).rate(0.5) == 1.0
    assert PollBudget(lambda: DOCUMENTED).rate(0.6) == pytest.approx(1.0)
