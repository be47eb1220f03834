"""Which poll shows most: a page of the list, or a single read."""

import math
import random
from datetime import UTC, datetime

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from gather_async import PollPolicy, Question, RateLimit, RateLimitedError
from gather_async.protocol.polling import PollBudget
from gather_async.waiting.scheduler import Scheduler
from gather_async.waiting.targets import Waiter
from tests.waiting_lists import SELDOM, Simulated, a_condition, a_page, names, processing


async def test_one_awaited_object_is_read_alone() -> None:
    """A single object is never looked for in the list."""
    world = Simulated(names(1000), 50)
    world.wait_for(["q7"])
    assert world.sweep() == 1
    assert world.singles == 1


@pytest.mark.parametrize("counts", [True, False])
async def test_a_whole_list_costs_its_pages(counts: bool) -> None:
    """Awaiting everything costs one request a page, from the first sweep on."""
    world = Simulated(names(400), 50, counts=counts)
    world.wait_for(names(400))
    assert world.sweep() == 8
    assert world.sweep() == 8
    assert world.singles == 0


@pytest.mark.parametrize("newest_first", [True, False])
async def test_new_objects_are_found_at_either_end_of_a_long_list(newest_first: bool) -> None:
    """Awaiting the newest 100 of 10 000 reads their pages, and few others, once."""
    ids = names(10_000)
    world = Simulated(ids[::-1] if newest_first else ids, 50)
    world.wait_for(ids[-100:])
    assert world.sweep() <= 5
    assert world.sweep() == 2


async def test_a_list_that_ignores_the_page_number_is_one_page() -> None:
    """Where every page is the first one, it is not read under other numbers for long."""
    world = Simulated(names(300), 100, counts=False, paged=False)
    world.wait_for(names(300))
    first = world.sweep()
    assert world.index.pages == 1
    assert first <= 100 / 100 + 1 + 200
    assert world.sweep() == 201


async def test_a_list_without_the_awaited_is_given_up() -> None:
    """A list that shows none of them costs a few pages, then each is read alone."""
    world = Simulated([f"other{number}" for number in range(5000)], 50)
    world.wait_for(names(40))
    assert world.sweep() <= 40 + 9
    assert world.sweep() == 40


@pytest.mark.parametrize(("count", "pages"), [(2, 2), (4, 2), (16, 4), (80, 8)])
async def test_a_search_for_few_is_given_up_sooner(count: int, pages: int) -> None:
    """Two pages are tried for a few, and a fourth of the number of more, eight at most."""
    world = Simulated([f"other{number}" for number in range(5000)], 50)
    world.wait_for(names(count))
    world.sweep()
    assert (world.pages, world.singles) == (pages, count)


async def test_a_list_that_grew_at_its_end_is_searched_there() -> None:
    """A page that was the last isn't any more once another one follows."""
    world = Simulated(names(100), 50, counts=False)
    world.wait_for(names(100))
    world.sweep()
    world.wait_for(["gone0", "gone1"])  # which is searched for to the end
    world.sweep()
    assert world.index.pages == 2
    world.ids = [*world.ids, *(f"new{number}" for number in range(50))]
    world.wait_for(world.ids[-50:])
    world.sweep()
    assert world.sweep() <= 3 + 2 + 1


async def test_what_left_its_page_is_searched_for_beside_it_first() -> None:
    """The page that something left last is the likeliest, wherever other things are."""
    ids = names(500)
    world = Simulated(list(ids), 50)
    world.wait_for(ids[140:150] + ids[350:360])
    world.sweep()
    world.ids = ["new0", "new1", "new2", *ids]
    assert world.sweep() == 3


async def test_a_search_for_what_ended_meanwhile_speaks_against_no_list() -> None:
    """A page that came too late for all waits was no search in vain."""
    world = Simulated(["other"], 50)
    for batch in range(4):
        targets = world.wait_for([f"b{batch}-{number}" for number in range(2)])
        assert world.plan(1) == [1]
        for waiter in [waiter for target in targets for waiter in target.waiters]:
            world.scheduler.remove(waiter)
        world.answer(1)
        assert world.index.is_usable(world.now)
        world.now += 1e7  # their policy is slow


async def test_an_answer_that_took_long_hides_nothing_from_a_search() -> None:
    """A page that was asked for before others got lost doesn't make those after it read."""
    world = Simulated(names(2), 50)
    world.wait_for(names(2))
    world.sweep()
    world.scheduler.record_page(1, a_page(names(2)), 4.5)
    world.index.lose(3, 5.0)
    world.index.lose(1, 4.0)
    assert world.index.next_to_search() == 1


async def test_what_left_its_page_is_counted_once() -> None:
    """A page that is read again without what left it makes no more of it."""
    world = Simulated(names(3), 50)
    world.wait_for(names(3))
    world.sweep()
    for at in (1.0, 2.0):
        world.scheduler.record_page(1, a_page(names(3)[1:]), at)
        assert world.index.lost == 1


async def test_a_search_that_was_given_up_hinders_no_later_one() -> None:
    """What is awaited later is searched for, though what was awaited first is not in the list."""
    others = [f"other{number}" for number in range(20_000)]
    world = Simulated(others, 50)
    world.wait_for(names(40))
    world.sweep()
    world.ids = [f"new{number}" for number in range(100)] + others
    world.wait_for(world.ids[:100])
    world.sweep()
    assert world.sweep() <= 40 + 2


async def test_a_list_without_some_of_the_awaited_stays_in_use() -> None:
    """A known page that is read again is no search in vain for what isn't in the list."""
    world = Simulated(names(50), 50)
    world.wait_for([*names(40), "gone0", "gone1"])
    assert world.sweep() == 3
    assert [world.sweep() for _ in range(6)] == [3] * 6
    assert world.index.is_usable(world.now)


async def test_an_empty_list_is_suspended_after_a_few_searches() -> None:
    """A list that never shows anything is no longer searched for newcomers."""
    world = Simulated([], 50)
    for batch in range(5):
        world.wait_for([f"b{batch}-{number}" for number in range(4)])
        world.sweep()
    assert world.pages == 3
    assert not world.index.is_usable(world.now)
    assert world.index.is_usable(world.now + 1000)


async def test_a_shifted_list_costs_only_its_neighbours() -> None:
    """New items at the front move some to the next page, where they are found at once."""
    ids = names(200)
    world = Simulated(list(ids), 50)
    targets = world.wait_for(ids)
    world.sweep()
    world.ids = [f"new{number}" for number in range(5)] + ids
    assert world.sweep() <= 6
    assert {each.page for each in targets} == {1, 2, 3, 4, 5}
    assert world.sweep() <= 5


def law(
    total: int, size: int, wanted: int, missing: int, *, counts: bool, seed: int
) -> dict[str, object]:
    """Return one example of the law below, for a list that is paged."""
    own = {"total": total, "size": size, "wanted": wanted, "missing": missing}
    return {**own, "counts": counts, "paged": True, "seed": seed}


# A search that forgets its fruitless pages with each find never ends on these.
@example(**law(250, 1, 64, 0, counts=True, seed=0))
@example(**law(250, 1, 64, 0, counts=False, seed=0))
@example(**law(144, 1, 43, 4, counts=False, seed=17))
@example(**law(189, 1, 62, 0, counts=False, seed=196))
@given(
    total=st.integers(1, 600),
    size=st.integers(1, 100),
    wanted=st.integers(1, 80),
    missing=st.integers(0, 20),
    counts=st.booleans(),
    paged=st.booleans(),
    seed=st.integers(0, 1000),
)
async def test_a_sweep_costs_at_most_the_single_reads_and_a_short_search(
    *, total: int, size: int, wanted: int, missing: int, counts: bool, paged: bool, seed: int
) -> None:
    """Whatever the list does, a search ends ten pages beyond what it saved.

    Only a list whose rest has fewer pages than ids are lost may be read to its end.
    """
    rng = random.Random(seed)
    ids = names(total)
    world = Simulated(ids, size, counts=counts, paged=paged)
    awaited = rng.sample(ids, min(wanted, total)) + [f"gone{n}" for n in range(missing)]
    world.wait_for(awaited)
    pages = math.ceil(total / size)
    first = world.sweep()
    assert first <= len(awaited) + 10 + (pages if pages < len(awaited) + 10 else 0)
    settled = world.sweep()
    assert settled <= max(first, world.index.sweep_cost(world.now) + 10)
    if paged and not missing and len(awaited) > 1:
        assert settled <= math.ceil(total / size) + 10 or settled <= len(awaited)


async def test_pages_in_flight_answer_for_their_targets() -> None:
    """What is being read with a page isn't asked for again, nor is what may be on it."""
    world = Simulated(names(200), 50)
    world.wait_for(names(100))
    world.sweep()
    world.scheduler.notify(frozenset(), world.now)
    assert world.plan(3) == [1, 2, None]
    world.wait_for(["q150", "q151"])  # pages 1 and 2 may have grown
    assert world.plan(1) == [None]


async def test_one_of_the_polls_in_flight_is_no_page() -> None:
    """Three pages that hang leave room for a single read."""
    world = Simulated(names(500), 50)
    world.wait_for(names(500))
    world.sweep()
    world.scheduler.notify(frozenset(), world.now)
    assert world.plan(4) == [1, 2, 3, None]
    world.scheduler.notify(frozenset({"q7"}), world.now)
    assert world.plan(2) == ["q7", None]


async def test_without_a_list_everything_is_read_alone() -> None:
    """Where there is no list, the most urgent object comes first."""
    world = Simulated([], 50, has_list=False)
    world.wait_for(["a", "b"])
    assert world.plan(2) == ["a", "b"]


async def test_what_is_alone_on_its_page_is_read_alone() -> None:
    """A page that shows one of the awaited saves nothing, and single reads are the last word."""
    world = Simulated(names(100), 50)
    world.wait_for(["q1", "q60"])
    world.sweep()
    world.singles = world.pages = 0
    assert world.sweep() == 2
    assert (world.singles, world.pages) == (2, 0)


async def test_only_one_search_runs() -> None:
    """What is lost waits for the page in flight, instead of asking for it once more."""
    world = Simulated(names(100), 50)
    world.wait_for(["a", "b"])
    assert world.plan(1) == [1]
    world.wait_for(["c", "d"])
    assert world.plan(1) == [None]


async def test_what_is_not_awaited_any_more_is_not_polled() -> None:
    """An object whose last wait ended leaves the queue that it stood in."""
    world = Simulated([], 50, has_list=False)
    _, target = world.wait_for(["a", "b"])
    assert world.plan(1) == ["a"]
    for waiter in list(target.waiters):
        world.scheduler.remove(waiter)
    assert world.plan(1) == [None]


async def test_the_policy_of_a_wait_that_ended_counts_no_more() -> None:
    """The share and the priority are those of the waits that are left."""
    world = Simulated([], 50, has_list=False)
    world.wait_for(["a"])
    greedy = Waiter[Question]("a", PollPolicy(quota_share=1.0), 0.0, math.inf, print)
    world.scheduler.add(greedy, 0.0)
    world.scheduler.remove(greedy)
    assert list(world.scheduler.policies) == [SELDOM]


async def test_the_final_poll_comes_as_much_sooner_as_answers_take_longer() -> None:
    """An answer that took five seconds moves the final poll to ten before the deadline."""
    world = Simulated([], 50, has_list=False)
    world.scheduler.add(Waiter[Question]("a", SELDOM, 0.0, 100.0, print), 0.0)
    assert world.plan(1) == ["a"]
    world.scheduler.record_read("a", processing("a"), 5.0)
    assert world.scheduler.plan(89.9)[0] is None
    assert world.scheduler.plan(90.1)[0] == "a"


async def test_a_final_poll_of_what_hangs_holds_up_no_other() -> None:
    """What is being read is not queued again, where others would stand behind it."""
    world = Simulated([], 50, has_list=False)
    world.scheduler.add(Waiter[Question]("a", SELDOM, 0.0, 10.0, print), 0.0)
    world.wait_for(["b"])
    assert world.plan(2) == ["a", "b"]
    world.scheduler.record_read("b", processing("b"), 0.1)
    assert world.scheduler.plan(9.6)[0] is None
    world.scheduler.notify(frozenset(), 9.7)
    assert world.scheduler.plan(9.7)[0] == "b"


async def test_events_of_one_page_share_its_read() -> None:
    """Of ten objects on one page that events name, the page is read, not each."""
    world = Simulated(names(100), 50)
    world.wait_for(names(100))
    world.sweep()
    world.scheduler.notify(frozenset(names(10)), world.now)
    assert world.plan(2) == [1, None]
    world.scheduler.record_page(1, a_page(names(50)), world.now + 1)
    world.now += 1
    assert world.plan(1) == [None]


async def test_what_left_its_page_and_is_found_nowhere_costs_a_read_of_its_own() -> None:
    """Once it was read alone, no page is believed to hold it."""
    world = Simulated(names(100), 50)
    world.wait_for(names(100))
    world.sweep()
    world.ids = world.ids[2:]
    world.sweep()
    assert world.index.sweep_cost(world.now) == 2 + 2


async def test_a_doubted_list_is_settled_at_once() -> None:
    """The read that says what a list without states is worth is not spread like others."""
    limits = [RateLimit(100, per=60), RateLimit(1000, per=3600)]
    scheduler = Scheduler(
        a_condition(), PollBudget(lambda: limits), random.Random(1), is_alive=lambda: False
    )
    scheduler.add(Waiter[Question]("q0", SELDOM, 0.0, math.inf, print), 0.0)
    assert scheduler.plan(0.0)[0] == "q0"
    scheduler.record_read("q0", processing("q0"), 0.1)
    for name in names(41)[1:]:
        scheduler.add(Waiter[Question](name, SELDOM, 0.2, math.inf, print), 0.2)
    assert scheduler.plan(0.2)[0] == 1
    silent = [Question(id=each) for each in names(41)]
    scheduler.record_page(1, evolve(a_page([]), items=tuple(silent), total=41), 0.3)
    assert scheduler.plan(0.3)[0] == "q1"


async def test_the_list_is_checked_while_half_of_the_share_is_free() -> None:
    """What was long believed is read alone later, if polls used more than half lately."""
    budget = PollBudget(lambda: [RateLimit(100, per=60)])
    scheduler = Scheduler(a_condition(), budget, random.Random(1), is_alive=lambda: False)
    for name in names(3):
        scheduler.add(Waiter[Question](name, SELDOM, 0.0, math.inf, print), 0.0)
    assert scheduler.plan(0.0)[0] == 1
    for at in (0.0, 61.0, 122.0):
        for _ in range(39):
            budget.spend(at, 0.2, is_page=True)
    scheduler.record_page(1, a_page(names(3)), 180.0)
    assert budget.wait(183.0, 0.2, is_page=False) == 0.0
    assert scheduler.plan(183.0)[0] is None
    assert scheduler.plan(240.0)[0] == "q0"


@pytest.mark.parametrize(("reset", "pause"), [(30.0, 30.0), (3600.0, 60.0)])
async def test_a_429_is_waited_out_for_a_minute_at_most(reset: float, pause: float) -> None:
    """Polls pause until the server's quota is reset; a reset far away may be a mistake."""
    world = Simulated([], 50, has_list=False)
    world.scheduler.add(Waiter[Question]("a", PollPolicy(), 0.0, math.inf, print), 0.0)
    assert world.plan(1) == ["a"]
    wall = 1_700_000_000.0
    error = RateLimitedError(
        "Too many requests",
        status=429,
        code=None,
        message="",
        details={},
        request_id=None,
        body="",
        headers={},
    )
    error.reset_at = datetime.fromtimestamp(wall + reset, UTC)
    world.scheduler.record_failure("a", error, 0.0, wall)
    assert world.scheduler.plan(pause - 0.1)[0] is None
    assert world.scheduler.plan(pause + 0.1)[0] == "a"


async def test_times_of_waits_that_ended_are_forgotten() -> None:
    """Waits of days that end within seconds leave nothing behind that grows."""
    world = Simulated([], 50, has_list=False)
    world.wait_for(["a"])
    for number in range(2000):
        waiter = Waiter[Question](f"q{number}", SELDOM, 0.0, 86_400.0, print)
        world.scheduler.add(waiter, 0.0)
        world.scheduler.remove(waiter)
    assert len(world.scheduler._times) < 500
