"""Whether a list is believed."""

import asyncio
import math
import random

import pytest
from attrs import evolve

from gather_async import (
    CandidateInterview,
    GatherConnectionError,
    InterviewResults,
    PollPolicy,
    Question,
    RateLimit,
    ResponseDecodeError,
)
from gather_async.pager import Page
from gather_async.protocol.polling import PollBudget
from gather_async.waiting.conditions import audio_ready, completed, summarized
from gather_async.waiting.scheduler import Scheduler
from gather_async.waiting.targets import ListIndex, Target, Waiter
from tests.waiting_lists import Simulated, a_page, names, processing


class Listed:
    """A scheduler with waiters for q0, q1 and so on, and the answers that it is given."""

    def __init__(self, count: int) -> None:
        plenty = PollBudget(lambda: [RateLimit(1_000_000, per=60)])
        self.scheduler = Scheduler(
            audio_ready({}), plenty, random.Random(1), is_alive=lambda: False
        )
        self.waiters = [
            Waiter[Question](f"q{number}", PollPolicy(), 0.0, math.inf, print)
            for number in range(count)
        ]
        for waiter in self.waiters:
            self.scheduler.add(waiter, 0.0)

    @property
    def index(self) -> ListIndex[Question]:
        """What is known of the list."""
        return self.scheduler._index

    def show(self, status: str | None, at: float, *, audio_url: str | None = None) -> int:
        """Record a page of all questions with that state; return how many were believed."""
        items = tuple(
            Question(id=waiter.id, transcription_status=status, audio_url=audio_url)
            for waiter in self.waiters
        )
        page = Page[Question](
            items=items,
            page=1,
            total=len(items),
            has_next=False,
            fetch_next=asyncio.sleep,  # type: ignore[arg-type]  # never called
        )
        self.scheduler.record_page(1, page, at)
        return sum(target.polled_at == at for target in self.scheduler.targets.values())

    def read(self, number: int, status: str | None, at: float) -> None:
        """Record a single read."""
        question = Question(id=f"q{number}", transcription_status=status)
        self.scheduler.record_read(question.id, question, at)

    def plan(self, at: float, times: int) -> list[str | int | None]:
        """Plan polls; return them."""
        return [self.scheduler.plan(at)[0] for _ in range(times)]


async def test_items_that_name_a_state_are_believed() -> None:
    """A list that names states is believed without a check."""
    listed = Listed(3)
    assert listed.show("processing", 1.0) == 3
    assert not listed.index.is_doubted


async def test_items_without_a_state_wait_for_one_check() -> None:
    """Nothing is believed until one read found no state either; then everything is."""
    listed = Listed(3)
    assert listed.show(None, 1.0) == 0
    assert listed.index.is_doubted
    assert listed.plan(1.0, 2) == ["q0", None]
    listed.read(0, None, 2.0)
    assert not listed.index.is_doubted
    assert listed.show(None, 3.0) == 3


async def test_a_list_that_hides_the_state_is_suspended() -> None:
    """A read that names a state shows that the list doesn't, so it isn't used."""
    listed = Listed(3)
    listed.show(None, 1.0)
    listed.read(0, "processing", 2.0)
    assert not listed.index.is_usable(2.0)
    assert listed.index.is_usable(4000.0)


async def test_a_check_that_is_not_awaited_any_more_is_made_with_another() -> None:
    """If no call waits for the one that is being read, another one is chosen."""
    listed = Listed(3)
    listed.show(None, 1.0)
    assert listed.plan(1.0, 2) == ["q0", None]
    listed.scheduler.remove(listed.waiters[0])
    assert listed.plan(1.0, 1) == [None]
    listed.read(0, "processing", 2.0)
    assert listed.index.is_doubted
    assert listed.plan(2.0, 2) == ["q1", None]


async def test_a_check_that_failed_is_made_with_another() -> None:
    """The longest not polled is checked next."""
    listed = Listed(3)
    listed.show(None, 1.0)
    assert listed.plan(1.0, 2) == ["q0", None]
    listed.scheduler.record_failure(
        "q0", GatherConnectionError("The connection was lost.", maybe_processed=False), 2.0, 2.0
    )
    assert listed.index.is_doubted
    assert listed.plan(4.0, 2) == ["q1", None]


async def test_a_list_that_fails_now_and_then_stays_in_use() -> None:
    """Three failures in a row suspend a list; three with an answer between don't."""
    listed = Listed(3)
    error = GatherConnectionError("The connection was lost.", maybe_processed=False)
    for at in (1.0, 2.0):
        listed.scheduler.record_failure(1, error, at, at)
    listed.scheduler.end(1, 3.0)
    assert listed.show("processing", 3.0) == 3
    for at in (4.0, 5.0):
        listed.scheduler.record_failure(1, error, at, at)
        assert listed.index.is_usable(at)
    listed.scheduler.record_failure(1, error, 6.0, 6.0)
    assert not listed.index.is_usable(6.0)


async def test_any_page_between_failures_keeps_a_list_in_use() -> None:
    """Failures count in a row only, whether what came between them was new or not."""
    listed = Listed(3)
    error = GatherConnectionError("The connection was lost.", maybe_processed=False)
    listed.show("processing", 0.5)
    for at in (1.0, 3.0, 5.0):
        listed.scheduler.record_failure(1, error, at, at)
        listed.scheduler.record_failure(1, error, at + 0.1, at)
        assert listed.index.is_usable(at + 0.1)
        listed.show("processing", at + 1.0)


async def test_a_list_that_fails_on_is_left_alone_for_longer_and_longer() -> None:
    """For a minute after three failures in a row, then one longer each time, up to fifteen."""
    listed = Listed(3)
    error = GatherConnectionError("The connection was lost.", maybe_processed=False)
    at = 1.0
    for number in range(20):
        assert listed.index.is_usable(at)
        listed.scheduler.record_failure(1, error, at, at)
        if number >= 2:
            at += 60.0 * min(15, number - 1)
            assert not listed.index.is_usable(at - 0.1)


async def test_what_is_not_in_the_list_is_searched_for_again_at_times() -> None:
    """Half a minute later, as the list may have been behind, and then each hour."""
    world = Simulated([f"other{number}" for number in range(5000)], 50)
    world.wait_for(names(40))
    world.sweep()
    searched = []
    for at in (20.0, 31.0, 100.0, 1800.0, 3640.0, 3700.0):
        world.now, before = at, world.pages
        world.sweep()  # the first single read says that it is time
        world.sweep()
        searched.append(world.pages - before)
    assert [pages > 0 for pages in searched] == [False, True, False, False, True, False]
    assert max(searched) <= 8


async def test_a_page_that_makes_no_sense_suspends_its_list() -> None:
    """What can't be decoded once won't be a moment later."""
    listed = Listed(3)
    error = ResponseDecodeError("The body is not JSON.", body="<html>", path="$")
    listed.scheduler.record_failure(1, error, 1.0, 1.0)
    assert not listed.index.is_usable(60.0)


async def test_a_list_that_stays_behind_a_single_read_is_suspended() -> None:
    """What a read found over, and the list calls unfinished long after, shows that it is old."""
    listed = Listed(3)
    listed.show("processing", 1.0)
    listed.read(0, "complete", 2.0)
    listed.show("processing", 4.0)  # a few seconds of lag do no harm
    assert listed.index.is_usable(4.0)
    listed.show("processing", 10.0)
    assert not listed.index.is_usable(10.0)
    assert listed.index.is_usable(71.0)
    listed.show("processing", 72.0)  # the same again: its audio may be made anew
    assert listed.index.is_usable(72.0)


async def test_single_reads_one_after_the_other_hide_no_list_that_is_old() -> None:
    """The first that was found over is looked out for, as the list may be behind with the last."""
    listed = Listed(3)
    listed.show("processing", 1.0)
    listed.read(0, "complete", 2.0)
    listed.read(1, "complete", 8.0)
    listed.show("processing", 9.0)
    assert not listed.index.is_usable(9.0)


async def test_what_the_list_never_showed_hides_no_list_that_is_old() -> None:
    """Of what single reads found over, one that the list showed unfinished is looked out for."""
    listed = Listed(3)
    listed.read(0, "processing", 0.5)
    listed.read(0, "complete", 0.6)
    listed.waiters = listed.waiters[1:]
    listed.show("processing", 1.0)
    listed.read(1, "complete", 2.0)
    listed.show("processing", 10.0)
    assert not listed.index.is_usable(10.0)


@pytest.mark.parametrize(
    ("read_at", "at"),
    [(0.0, 120.0), (120.0, 240.0), (600.0, 1200.0), (20_000.0, 23_600.0), (9990.0, 9999.5)],
)
async def test_the_list_is_checked_at_growing_intervals(read_at: float, at: float) -> None:
    """After two minutes, then when the wait is twice as old, once an hour, and at the end."""
    target = Target[Question]("q0", began=0.0, read_at=0.0)
    timeout = 10_000.0 if at == 9999.5 else math.inf
    target.add(Waiter[Question]("q0", PollPolicy(), 0.0, timeout, print))
    read = target.record(audio_ready({}), Question(id="q0"), read_at, read_at, is_own=True)
    assert not list(read)
    assert not target.is_unchecked(at - 0.1, 0.0)
    assert target.is_unchecked(at, 0.0)


async def test_a_list_that_catches_up_stays_in_use() -> None:
    """A list that shows the end some seconds after a single read is believed."""
    listed = Listed(3)
    listed.show("processing", 1.0)
    listed.read(0, "complete", 2.0)
    listed.show("complete", 4.0, audio_url="https://audio.invalid/a.mp3")
    listed.show("processing", 10.0)
    assert listed.index.is_usable(10.0)


async def test_audio_that_is_made_anew_makes_no_list_look_old() -> None:
    """What the list itself called over may be unfinished again."""
    listed = Listed(3)
    listed.show("processing", 1.0)
    listed.show("complete", 2.0, audio_url="https://audio.invalid/a.mp3")
    assert not listed.scheduler.targets
    listed.show("processing", 10.0)
    assert listed.index.is_usable(10.0)


async def test_a_suspended_list_needs_no_check() -> None:
    """Single reads go on although the list was found wrong while a check was due."""
    listed = Listed(3)
    listed.show("complete", 1.0)
    assert listed.plan(1.0, 1) == ["q0"]  # which the list calls over
    checked = listed.scheduler.targets["q0"]
    checked.polled_at = 2.0
    listed.show(None, 2.0)
    assert listed.index.is_doubted
    listed.read(0, "processing", 3.0)
    assert not listed.index.is_doubted
    assert set(listed.plan(3.0, 2)) == {"q1", "q2"}


async def test_a_list_that_is_ahead_of_single_reads_is_suspended() -> None:
    """What the list calls over and a read doesn't is waited for with reads of its own."""
    listed = Listed(3)
    listed.show("complete", 1.0)
    assert listed.plan(1.0, 2) == ["q0", "q1"]
    listed.read(0, "processing", 2.0)
    assert not listed.index.is_usable(2.0)
    assert not any(waiter.outcome is not None for waiter in listed.waiters)


async def test_a_list_that_satisfied_one_wait_is_not_ahead_for_another() -> None:
    """Words that mean success to one policy alone don't show that the list is wrong."""
    listed = Listed(3)
    own = PollPolicy(ready_words={"baked"})
    listed.scheduler.add(Waiter[Question]("q0", own, 0.0, math.inf, print), 0.0)
    listed.show("complete", 1.0)
    assert listed.plan(1.0, 1) == ["q0"]
    listed.read(0, "complete", 2.0)
    assert listed.waiters[0].outcome is not None
    assert "q0" in listed.scheduler.targets
    assert listed.index.is_usable(2.0)


async def test_another_wait_for_the_same_object_brings_its_next_poll_forward() -> None:
    """A second wait is polled for by its own policy, not when the first one's turn comes."""
    listed = Listed(1)
    assert listed.plan(0.0, 1) == ["q0"]
    seldom = PollPolicy(first=100.0, cap=100.0)
    listed.scheduler.remove(listed.waiters[0])
    listed.scheduler.add(Waiter[Question]("q0", seldom, 0.0, math.inf, print), 0.0)
    listed.read(0, "processing", 0.1)
    assert listed.plan(20.0, 1) == [None]
    listed.scheduler.add(Waiter[Question]("q0", PollPolicy(), 20.0, math.inf, print), 20.0)
    assert listed.plan(20.0, 1) == ["q0"]


async def test_a_list_is_checked_after_half_of_the_timeout() -> None:
    """What the list calls unfinished is read alone in time, however short the wait is."""
    listed = Listed(2)
    seldom = PollPolicy(first=1e6, cap=1e6)
    for waiter in listed.waiters:
        listed.scheduler.remove(waiter)
        listed.scheduler.add(Waiter[Question](waiter.id, seldom, 0.0, 40.0, print), 0.0)
    assert listed.plan(0.0, 1) == [1]
    listed.show("processing", 15.0)
    assert listed.plan(15.0, 1) == [None]
    listed.show("processing", 21.0)
    assert listed.plan(21.0, 2) == ["q0", "q1"]


async def test_a_list_item_with_few_fields_hides_nothing_that_was_read() -> None:
    """What a timeout shows is the last whole object, whatever a list item left out of it."""
    condition = completed({}, lambda: 0.0)
    target = Target[CandidateInterview]("link", began=0.0, read_at=0.0)
    target.add(Waiter("link", PollPolicy(), 0.0, math.inf, print))
    whole, listed = (CandidateInterview(id="link", invite_token=each) for each in ("secret", None))
    assert not list(target.record(condition, listed, 0.0, 0.0, is_own=False))
    assert target.last is listed
    assert not list(target.record(condition, whole, 1.0, 1.0, is_own=True))
    assert not list(target.record(condition, listed, 2.0, 2.0, is_own=False))
    assert target.last is whole


def test_an_item_without_a_status_says_nothing_of_a_candidate() -> None:
    """A list of candidate interviews that names no status is doubted like any other."""
    condition = completed({}, lambda: 0.0)
    assert not condition.is_telling(CandidateInterview(id="link"))


@pytest.mark.parametrize(("summary", "is_over"), [("All went well.", True), (None, False)])
def test_a_summary_without_a_status_is_one(summary: str | None, is_over: bool) -> None:
    """Where the server names no state of the summary, its text decides."""
    condition = summarized({}, lambda: 0.0)
    results = InterviewResults(summary=summary)
    assert condition.judge(results, PollPolicy(), 0.0) is (results if is_over else None)


def test_a_search_that_only_meets_what_moved_finds_nothing() -> None:
    """A list that shifts shows known items on other pages: what is lost is as lost as before."""
    listed = Simulated(names(2), 1)
    listed.wait_for(["q0", "gone"])
    shown = {"q0": processing("q0")}
    for number in (1, 2, 1, 2):
        assert listed.index.is_usable(0.0)
        page = evolve(a_page(["q0"]), page=number, total=2)
        listed.index.record_page(0.0, number, page, shown, is_search=True)
    assert not listed.index.is_usable(0.0)
