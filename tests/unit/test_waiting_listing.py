"""Whether a list is believed."""

import asyncio

from gather_async import PollPolicy, Question
from gather_async.waiting.conditions import ListPage, audio_ready
from gather_async.waiting.list_index import Listing, Poll, ReadPage
from gather_async.waiting.registry import Waiter, WaiterRegistry


def a_listing(
    count: int,
) -> tuple[Listing[Question], WaiterRegistry[Question], list[Waiter[Question]]]:
    """Return a listing with that many waiters, for q0, q1 and so on."""
    loop = asyncio.get_running_loop()
    roster: WaiterRegistry[Question] = WaiterRegistry()
    waiters: list[Waiter[Question]] = []
    for number in range(count):
        waiter = Waiter[Question](f"q{number}", PollPolicy(), 0.0, 60.0, loop.create_future())
        roster.add(waiter, 0.0, told_at=None, seen=None)
        waiters.append(waiter)
    return Listing(audio_ready({}), roster), roster, waiters


def see(listing: Listing[Question], status: str | None, count: int) -> int:
    """Show a page of questions with that state; return how many were believed."""
    items = {
        f"q{number}": Question(id=f"q{number}", transcription_status=status)
        for number in range(count)
    }
    page = ReadPage(1, is_search=True)
    step = Poll(page, began=0.0, sought=frozenset(items), since=0.0)
    return len(listing.saw(step, page, ListPage(items=items, total=count), 1.0))


async def test_items_that_name_a_state_are_believed() -> None:
    """A list that names states is believed without a check."""
    listing, _, _ = a_listing(3)
    assert see(listing, "processing", 3) == 3
    assert listing.doubted is None


async def test_items_without_a_state_wait_for_one_check() -> None:
    """Nothing is believed until one read found no state either; then everything is."""
    listing, _, _ = a_listing(3)
    assert see(listing, None, 3) == 0
    assert listing.doubted == "q0"
    listing.saw_one("q0", Question(id="q0"), 2.0)
    assert listing.doubted is None
    assert see(listing, None, 3) == 3


async def test_a_list_that_hides_the_state_is_left_alone() -> None:
    """A read that names a state shows that the list doesn't, so it isn't used."""
    listing, _, _ = a_listing(3)
    see(listing, None, 3)
    listing.saw_one("q0", Question(id="q0", transcription_status="processing"), 2.0)
    assert listing.map(2.0) is None
    assert listing.map(4000.0) is not None


async def test_a_doubt_about_somebody_who_left_is_dropped() -> None:
    """If nobody waits for the one to be checked, another one is chosen."""
    listing, roster, waiters = a_listing(3)
    see(listing, None, 3)
    roster.drop(waiters[0])
    assert listing.doubted is None
    see(listing, None, 3)
    assert listing.doubted == "q1"


async def test_a_check_that_failed_is_made_with_another() -> None:
    """The longest not looked at is checked next."""
    listing, roster, _ = a_listing(3)
    see(listing, None, 3)
    checked = roster.get("q0")
    assert checked is not None
    checked.looked_at = 2.0
    listing.failed_one("q0")
    see(listing, None, 3)
    assert listing.doubted == "q1"
