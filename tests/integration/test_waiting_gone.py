"""Waits for what is deleted, and for candidates whose link expires."""

import asyncio

import pytest

from gather_async import InterviewResults, NotFoundError, PollPolicy, Question, WaitTimeoutError
from gather_async.protocol.polling import PollBudget
from tests.waiting_world import a_world, an_invite

HOURLY = PollPolicy(first=600.0, cap=3600.0)


# What is deleted


@pytest.mark.parametrize("early", ["processing", "missing"])
async def test_a_wait_for_the_summary_of_what_was_deleted_ends(early: str) -> None:
    """Whether the candidate interview still exists is asked once an hour."""
    async with an_invite(early_results=early) as world:
        wait = world.gather.candidate_interviews.wait_until_summarized
        waiting = asyncio.ensure_future(wait(world.ids[0], timeout=None, poll=HOURLY))
        await world.clock.sleep(60.0)
        world.fake._world.candidate_interviews.rows.pop(world.ids[0])
        with pytest.raises(NotFoundError):
            await waiting
        assert world.waited <= 2 * 3600.0


async def test_waiting_for_a_summary_asks_for_its_candidate_interview_once_an_hour() -> None:
    """All other polls are of the results alone."""
    async with an_invite(early_results="missing") as world:
        wait = world.gather.candidate_interviews.wait_until_summarized
        with pytest.raises(WaitTimeoutError):
            await wait(world.ids[0], timeout=3.5 * 3600.0, poll=PollPolicy(cap=300.0))
        asked = [each for each in world.polls if each.path.endswith(world.ids[0])]
        assert len(asked) == 4


@pytest.mark.parametrize("count", [1, 2, 60])
async def test_a_question_that_was_deleted_ends_its_wait_only(count: int) -> None:
    """It is missing from the list then, so it is searched for, and read alone at last."""
    async with a_world(count + 1, audio_seconds=100.0) as world:
        waits = [asyncio.ensure_future(world.wait(number)) for number in range(count + 1)]
        await world.clock.sleep(20.0)
        gone = world.fake._world.questions.rows.pop(world.ids[0])
        world.fake._world.questions.order.remove(gone)
        with pytest.raises(NotFoundError):
            await waits[0]
        assert world.waited <= 80.0
        assert all(isinstance(each, Question) for each in await asyncio.gather(*waits[1:]))


# Links that expire


async def test_a_wait_for_an_expired_link_ends() -> None:
    """A candidate who let the link expire is not waited for any longer."""
    async with an_invite(3) as world:
        expiry = (await world.gather.candidate_interviews.get(world.ids[0])).expiry
        assert expiry is not None
        left = expiry.timestamp() - world.clock.wall()
        wait = world.gather.candidate_interviews.wait_until_completed
        waits = [asyncio.ensure_future(wait(each, timeout=None, poll=HOURLY)) for each in world.ids]
        await world.clock.sleep(left - 7200.0)
        world.fake.complete_interview(world.ids[2])
        assert (await waits[2]).status == "new_response"
        await world.clock.sleep(4 * 3600.0)
        for each, waiting in zip(world.ids, waits[:2], strict=False):
            error = waiting.exception()
            assert isinstance(error, WaitTimeoutError)
            assert error.last.id == each
            assert error.waited > left - 1.0
            assert "expired" in str(error)


@pytest.mark.parametrize("early", ["processing", "missing"])
async def test_a_wait_for_the_summary_of_an_expired_link_ends(early: str) -> None:
    """Results of a candidate who let the link expire never come."""
    async with an_invite(early_results=early) as world:
        wait = world.gather.candidate_interviews.wait_until_summarized
        waiting = asyncio.ensure_future(wait(world.ids[0], timeout=None, poll=HOURLY))
        link = await world.gather.candidate_interviews.get(world.ids[0])
        assert link.expiry is not None
        await world.clock.sleep(link.expiry.timestamp() - world.clock.wall() - 60.0)
        assert not waiting.done()
        await world.clock.sleep(2 * 3600.0)
        error = waiting.exception()
        assert isinstance(error, WaitTimeoutError)
        assert error.waited > link.expiry.timestamp() - world.clock.wall() + world.waited - 1.0


async def test_an_expiry_is_noticed_by_the_next_poll() -> None:
    """Whether a link has expired is known from what was read before, and then asked at once."""
    async with an_invite(early_results="missing") as world:
        link = await world.gather.candidate_interviews.get(world.ids[0])
        assert link.expiry is not None
        await world.clock.sleep(link.expiry.timestamp() - world.clock.wall() - 600.0)
        began = world.clock.monotonic()
        wait = world.gather.candidate_interviews.wait_until_summarized
        with pytest.raises(WaitTimeoutError):
            await wait(world.ids[0], timeout=None, poll=PollPolicy(first=30.0, cap=60.0))
        assert 600.0 <= world.clock.monotonic() - began <= 661.0


async def test_each_request_for_a_summary_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that reads the candidate interview, too, uses two requests of the share."""
    spent: list[float] = []
    spend = PollBudget.spend

    def note(self: PollBudget, now: float, share: float, *, is_page: bool) -> None:
        spent.append(now)
        spend(self, now, share, is_page=is_page)

    monkeypatch.setattr(PollBudget, "spend", note)
    async with an_invite(early_results="missing") as world:
        wait = world.gather.candidate_interviews.wait_until_summarized
        with pytest.raises(WaitTimeoutError):
            await wait(world.ids[0], timeout=20.0)
        assert len(spent) == len(world.polls)


async def test_the_summary_of_a_candidate_who_finished_in_time_is_awaited_after_expiry() -> None:
    """An expired link ends no wait for a summary that is being made."""
    async with an_invite(summary_seconds=7200.0) as world:
        wait = world.gather.candidate_interviews.wait_until_summarized
        waiting = asyncio.ensure_future(wait(world.ids[0], timeout=None, poll=HOURLY))
        link = await world.gather.candidate_interviews.get(world.ids[0])
        assert link.expiry is not None
        await world.clock.sleep(link.expiry.timestamp() - world.clock.wall() - 60.0)
        world.fake.complete_interview(world.ids[0])
        await world.clock.sleep(4 * 3600.0)
        assert isinstance(waiting.result(), InterviewResults)
