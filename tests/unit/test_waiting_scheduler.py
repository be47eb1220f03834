"""When each poll is due, which goes first, and what is forgotten."""

import math
import random
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from gather_async import AudioTimeoutError, GatherConnectionError, PollPolicy, Question, RateLimit
from gather_async.protocol.polling import PollBudget
from gather_async.waiting.scheduler import Scheduler
from gather_async.waiting.targets import CHUNK, Waiter
from tests.waiting_lists import SELDOM, a_condition, a_page, names, processing
from tests.waiting_world import DOCUMENTED, PLENTY


class Polls:
    """A scheduler, and waits that are added to it by hand."""

    def __init__(
        self, *, limits: Sequence[RateLimit] = tuple(PLENTY), has_list: bool = False
    ) -> None:
        self.budget = PollBudget(lambda: limits)
        self.scheduler = Scheduler(
            a_condition(has_list=has_list), self.budget, random.Random(1), is_alive=lambda: False
        )
        self.ended: list[Waiter[Question]] = []

    def add(
        self, name: str, at: float, policy: PollPolicy = SELDOM, timeout: float = math.inf
    ) -> Waiter[Question]:
        """Begin a wait."""
        waiter = Waiter[Question](name, policy, at, timeout, self.ended.append)
        self.scheduler.add(waiter, at)
        return waiter

    def add_polled(self, count: int, at: float, **options: Any) -> None:
        """Begin waits, and record that each was read alone then."""
        for name in names(count):
            self.add(name, at, **options)
            self.read(name, at)

    def plan(self, at: float) -> str | int | None:
        """Return the next poll, begun."""
        return self.scheduler.plan(at)[0]

    def read(self, name: str, at: float) -> None:
        """Record that a question isn't ready."""
        self.scheduler.record_read(name, processing(name), at)


async def test_a_wait_with_a_slow_policy_postpones_no_poll() -> None:
    """Who waits for the same with a longer first interval delays the others' polls by nothing."""
    polls = Polls()
    polls.add("a", 0.0, PollPolicy())
    assert polls.plan(0.0) == "a"
    polls.read("a", 0.0)
    polls.add("a", 0.5)
    assert polls.plan(1.1) == "a"


async def test_the_deadline_of_a_wait_that_ended_causes_no_poll() -> None:
    """What was planned for a wait that is over isn't done for another one of the same object."""
    polls = Polls()
    polls.add_polled(5, 0.0)
    ended = polls.add("a", 0.0, timeout=10.0)
    polls.scheduler.remove(ended)
    polls.add("a", 1.0)
    assert polls.plan(1.0) == "a"
    polls.read("a", 1.0)
    for at in (7.6, 9.6, 10.1):
        assert polls.plan(at) is None
    assert not polls.ended


async def test_the_times_of_what_is_awaited_anew_are_its_own() -> None:
    """A target that was forgotten is polled no more when the same object is awaited again."""
    polls = Polls()
    polls.add_polled(5, 0.0)
    first = polls.add("a", 0.0, PollPolicy(first=30.0))
    assert polls.plan(0.0) == "a"
    polls.read("a", 0.0)
    polls.scheduler.remove(first)
    polls.add("a", 1.0)
    assert polls.plan(1.0) == "a"
    polls.read("a", 1.0)
    assert polls.plan(31.0) is None


async def test_the_final_poll_goes_ahead_of_what_is_due_longer() -> None:
    """What is polled for the last time doesn't queue behind what can wait."""
    polls = Polls()
    polls.add("z", 0.0, timeout=10.0)
    assert polls.plan(0.0) == "z"
    polls.read("z", 0.0)
    for name in names(5):
        polls.add(name, 9.0)
    assert polls.plan(9.0) == "q0"
    assert polls.plan(9.6) == "z"


async def test_the_largest_share_of_all_waits_counts() -> None:
    """A wait that may use more of the quota lets the polls of all use it."""
    polls = Polls(limits=DOCUMENTED)
    polls.add("a", 0.0, PollPolicy())
    for _ in range(25):
        polls.budget.spend(0.0, 0.2, is_page=False)
    assert polls.plan(1.0) is None
    polls.add("b", 1.0, PollPolicy(quota_share=1.0))
    assert polls.plan(1.0) == "a"


async def test_final_polls_of_many_begin_as_early_as_the_quota_lets_them_take() -> None:
    """Fifty final polls of a second each, four at once, are begun 12.5 seconds ahead."""
    polls = Polls(limits=DOCUMENTED, has_list=True)
    for name in names(400):
        polls.add(name, 0.0, timeout=1000.0 if name == "q0" else math.inf)
    assert polls.plan(0.0) == 1
    polls.scheduler.record_page(1, a_page(names(400)), 1.0)
    assert polls.plan(980.0) is None
    assert polls.plan(988.0) == 1


async def test_thousands_of_deadlines_are_handled_in_steps() -> None:
    """The event loop isn't held up by waits that end at the same time."""
    polls = Polls()
    polls.add_polled(5 * CHUNK, 0.0, timeout=10.0)
    polls.plan(11.0)
    assert len(polls.ended) <= CHUNK
    while polls.scheduler.targets:
        _, seconds = polls.scheduler.plan(11.0)
        assert seconds <= 0.0
    assert len(polls.ended) == 5 * CHUNK


async def test_a_poll_in_between_puts_the_paced_one_off() -> None:
    """Where the quota makes polls a minute apart, a read for an event counts as one of them."""
    polls = Polls(limits=DOCUMENTED)
    polls.add_polled(39, 0.0)
    polls.add("z", 0.0, PollPolicy())
    polls.read("z", 0.0)
    assert polls.plan(30.0) is None
    polls.scheduler.notify(frozenset({"z"}), 30.0)
    assert polls.plan(30.0) == "z"
    polls.read("z", 30.0)
    assert polls.plan(61.0) is None
    assert polls.plan(91.0) == "z"


async def test_what_the_list_called_over_too_early_is_read_like_all_else() -> None:
    """Where the list is ahead, reads that it asked for lose their urgency."""
    polls = Polls(has_list=True)
    for name in names(5):
        polls.add(name, 0.0)
    assert polls.plan(0.0) == 1
    page = a_page(names(5))
    over = tuple(evolve(each, transcription_status="complete") for each in page.items)
    polls.scheduler.record_page(1, evolve(page, items=over), 1.0)
    assert [polls.plan(1.0) for _ in range(2)] == ["q0", "q1"]
    polls.read("q0", 2.0)
    assert set(polls.scheduler._urgent) == set()
    assert [polls.plan(2.0) for _ in range(3)] == ["q2", "q3", "q4"]


async def test_a_read_that_was_answered_in_time_needs_no_final_one() -> None:
    """What was read when the final poll is due isn't read again."""
    polls = Polls()
    polls.add("a", 0.0, timeout=10.0)
    assert polls.plan(0.0) == "a"
    polls.read("a", 0.0)
    polls.scheduler.notify(frozenset({"a"}), 9.3)
    assert polls.plan(9.3) == "a"
    polls.read("a", 9.55)
    assert polls.plan(9.6) is None


async def test_a_pause_is_interrupted_by_a_deadline() -> None:
    """However long polls pause after a failure, waits end in time."""
    polls = Polls()
    polls.add("a", 0.0, PollPolicy(first=100.0, cap=100.0), timeout=10.0)
    assert polls.plan(0.0) == "a"
    error = GatherConnectionError("The connection was lost.", maybe_processed=False)
    polls.scheduler.record_failure("a", error, 0.0, 0.0)
    for at in (1.0, 8.0, 9.9):
        poll, seconds = polls.scheduler.plan(at)
        assert poll is None
        assert seconds <= 10.0 - at
    polls.plan(10.0)
    assert [type(waiter.outcome) for waiter in polls.ended] == [AudioTimeoutError]


async def test_first_polls_that_have_to_wait_are_made_a_second_later() -> None:
    """The sixth wait in a row is polled within its first interval, though nothing else is due."""
    polls, once = Polls(), PollPolicy(first=1.0, factor=1e9, cap=1e6)
    polls.add("slow", 0.0)
    polls.read("slow", 0.0)
    for number in range(5):
        at = number / 100
        polls.add(f"q{number}", at, once)
        assert polls.plan(at) == f"q{number}"
        polls.read(f"q{number}", at + 0.005)
    polls.add("q5", 0.05, once)
    poll, seconds = polls.scheduler.plan(0.05)
    assert poll is None
    assert 0.9 <= seconds <= 1.0
    assert polls.plan(0.05 + seconds) == "q5"


async def test_an_event_about_what_left_its_page_is_followed_by_a_read_of_its_own() -> None:
    """Others that events name on the page that it left don't take it there."""
    polls = Polls(has_list=True)
    for name in names(3):
        polls.add(name, 0.0)
    assert polls.plan(0.0) == 1
    polls.scheduler.record_page(1, a_page(names(3)), 0.1)
    polls.scheduler.record_page(1, a_page(names(3)[1:]), 1.0)
    polls.scheduler.notify(frozenset({"q0"}), 2.0)
    polls.scheduler.notify(frozenset({"q1", "q2"}), 2.0)
    assert polls.plan(2.0) == "q0"


async def test_what_the_list_called_over_makes_no_page_worth_its_read() -> None:
    """An event is followed by a single read, although a neighbour has to be read alone, too."""
    polls = Polls(has_list=True)
    for name in names(2):
        polls.add(name, 0.0)
    assert polls.plan(0.0) == 1
    polls.scheduler.notify(frozenset({"q0"}), 0.5)
    page = a_page(names(2))
    over = evolve(page.items[1], transcription_status="complete")
    polls.scheduler.record_page(1, evolve(page, items=(page.items[0], over)), 1.0)
    assert [polls.plan(1.0) for _ in range(2)] == ["q0", "q1"]


async def test_what_the_list_called_over_is_read_alone_even_if_its_page_is_asked_for() -> None:
    """Events that name all of a page take none there that the page shows too little of."""
    polls = Polls(has_list=True)
    for name in names(3):
        polls.add(name, 0.0)
    assert polls.plan(0.0) == 1
    polls.scheduler.notify(frozenset({"q0"}), 0.5)
    polls.scheduler.notify(frozenset({"q1", "q2"}), 0.5)
    page = a_page(names(3))
    over = evolve(page.items[0], transcription_status="complete")
    polls.scheduler.record_page(1, evolve(page, items=(over, *page.items[1:])), 1.0)
    assert [polls.plan(1.0) for _ in range(2)] == ["q0", 1]


async def test_events_may_exceed_a_share_that_is_used_up_once() -> None:
    """Single reads for events use another share at once, and no more."""
    polls = Polls(limits=DOCUMENTED)
    polls.add_polled(60, 0.0)
    for _ in range(20):
        polls.budget.spend(100.0, 0.2, is_page=False)
    polls.scheduler.notify(frozenset(names(60)), 100.0)
    reads = 0
    while (poll := polls.plan(100.0)) is not None:
        polls.read(str(poll), 100.0)
        reads += 1
    assert reads == 20


async def test_an_event_is_followed_by_a_read_however_small_the_share_is() -> None:
    """Where the share is less than a request a minute, an event has its read at once."""
    polls = Polls(limits=[RateLimit(3, per=60)])
    polls.add_polled(1, 0.0)
    polls.budget.spend(90.0, 0.2, is_page=False)
    polls.scheduler.notify(frozenset({"q0"}), 100.0)
    assert polls.plan(100.0) == "q0"


async def test_an_event_is_not_spread_with_other_reads() -> None:
    """While many are read one after the other, what an event names is read at once."""
    polls = Polls(limits=DOCUMENTED)
    polls.add_polled(40, 0.0)
    for at, name in ((100.0, "q1"), (100.1, "q2")):
        polls.scheduler.notify(frozenset({name}), at)
        assert polls.plan(at) == name


async def test_what_the_list_calls_unfinished_is_read_alone_at_last_whatever_was_used() -> None:
    """The last check of a list needs no spare share, and no object is read twice for it."""
    polls = Polls(limits=DOCUMENTED[:1], has_list=True)
    for name in names(3):
        polls.add(name, 0.0, timeout=200.0)
    assert polls.plan(0.0) == 1
    polls.scheduler.record_page(1, a_page(names(3)), 0.1)
    for at in (30.0, 91.0, 150.0):
        for _ in range(39):
            polls.budget.spend(at, 0.2, is_page=True)
    polls.scheduler.record_page(1, a_page(names(3)), 150.0)
    assert polls.plan(160.0) is None
    assert polls.plan(199.9) == 1
    assert polls.plan(199.9) == "q0"
    polls.scheduler.record_page(1, a_page(names(3)), 199.9)
    assert polls.plan(199.9) == "q1"


async def test_what_one_page_showed_is_due_at_one_time() -> None:
    """Jitter is drawn for a page, or its read would come as early as the earliest of many."""
    polls = Polls(has_list=True)
    for name in names(50):
        polls.add(name, 0.0, PollPolicy())
    assert polls.plan(0.0) == 1
    polls.scheduler.record_page(1, a_page(names(50)), 1.0)
    assert len({target.due for target in polls.scheduler.targets.values()}) == 1


async def test_a_final_poll_is_not_spread_with_other_reads() -> None:
    """While many are read one after the other, a last read is made at its time."""
    polls = Polls(limits=DOCUMENTED)
    polls.add_polled(40, 0.0)
    polls.add("a", 0.0, timeout=100.5)
    polls.add("b", 0.0, timeout=100.6)
    for name in ("a", "b"):
        polls.read(name, 0.0)
    assert [polls.plan(at) for at in (75.0, 100.0, 100.1)] == [None, "a", "b"]


async def test_a_slow_answer_is_forgotten_by_halves() -> None:
    """A fast answer after one of five seconds leaves the final poll five seconds ahead."""
    polls = Polls()
    polls.add("a", 0.0, timeout=100.0)
    assert polls.plan(0.0) == "a"
    polls.read("a", 5.0)
    for at in (20.0, 30.0):
        polls.scheduler.notify(frozenset({"a"}), at)
        assert polls.plan(at) == "a"
        polls.read("a", at)
    assert polls.plan(94.9) is None
    assert polls.plan(95.1) == "a"


async def test_events_that_name_nothing_leave_one_time_for_each_target() -> None:
    """However many come before the polls that they ask for, what is remembered doesn't grow."""
    polls = Polls()
    polls.add_polled(10, 0.0)
    before = len(polls.scheduler._times)
    for _ in range(100):
        polls.scheduler.notify(frozenset(), 5.0)
    assert len(polls.scheduler._times) == before + 10


def test_a_wait_ends_once() -> None:
    """What comes after the end of a wait is neither its outcome nor reported."""
    ended: list[Waiter[Question]] = []
    waiter = Waiter[Question]("a", SELDOM, 0.0, math.inf, ended.append)
    waiter.end(processing("a"))
    waiter.end(processing("b"))
    assert ended == [waiter]
    assert waiter.outcome == processing("a")


async def test_polls_are_frequent_again_after_an_event() -> None:
    """What an event announced may take a moment to show, however old the wait is."""
    polls = Polls()
    polls.add("a", 0.0, PollPolicy())
    polls.read("a", 0.0)
    polls.scheduler.notify(frozenset({"a"}), 100.0)
    assert polls.plan(100.0) == "a"
    polls.read("a", 100.0)
    assert polls.plan(101.0) == "a"


async def test_polls_are_frequent_at_first_however_old_an_event_is() -> None:
    """A wait that begins some time after the event is as young as any other."""
    polls = Polls()
    polls.scheduler.notify(frozenset({"a"}), 0.0)
    polls.add("a", 50.0, PollPolicy())
    assert polls.plan(50.0) == "a"
    polls.read("a", 50.0)
    assert polls.plan(51.0) == "a"


async def test_a_page_that_came_after_a_failure_is_what_a_timeout_saw() -> None:
    """A timeout has no cause once anything was seen."""
    polls = Polls(has_list=True)
    for name in names(2):
        polls.add(name, 0.0, timeout=10.0)
    assert polls.plan(0.0) == 1
    error = GatherConnectionError("The connection was lost.", maybe_processed=False)
    polls.scheduler.record_failure(1, error, 0.0, 0.0)
    polls.scheduler.record_page(1, a_page(names(2)), 2.0)
    polls.plan(10.0)
    for waiter in polls.ended:
        assert isinstance(waiter.outcome, AudioTimeoutError)
        assert waiter.outcome.__cause__ is None
    assert len(polls.ended) == 2
