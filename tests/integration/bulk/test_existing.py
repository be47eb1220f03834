"""People who are there already: found the cheaper way, treated as asked."""

from pathlib import Path
from typing import Any, cast

import pytest

from gather_async import errors
from gather_async.bulk import InviteStatus, LookupStrategy
from gather_async.bulk.existing import ExistingIndex, ExistingRecord, KeysLeft
from gather_async.bulk.journal import Journal
from gather_async.pager import Page, Pager
from gather_async.testing import FakeGather

from .conftest import Bench, names_in, people

LIST = ("GET", "/qsi/gather/candidates")
INVITE_LIST = ("GET", "/qsi/gather/candidate-interviews")


def _known(count: int, *, first: int = 0) -> list[dict[str, Any]]:
    """Return rows with the external ids that `FakeGather.add_candidates` gives."""
    return [
        {**row, "external_id": f"person-{number}"}
        for number, row in enumerate(people(count, first=first), start=first)
    ]


async def test_an_interview_without_invites_spares_looking(bench: Bench) -> None:
    """Where no one is invited yet, one request shows that no other journal's people are there."""
    bench.fake.add_candidates(1000)
    job = bench.job(people(5))
    report = await job
    assert report.invited == 5
    assert job.plan.lookups is LookupStrategy.NONE
    assert (bench.sent.count(LIST), bench.sent.count(INVITE_LIST)) == (1, 1)


async def test_existing_people_are_invited_under_reuse(bench: Bench) -> None:
    """No one is created twice, and no one who has an invite gets another."""
    ids = bench.fake.add_candidates(3)
    client = bench.client()
    await client.candidate_interviews.create(
        candidate_id=ids[0],
        interview_id=bench.interview_id,
        send_invite=True,
        delivery_types=["email"],
    )
    job = bench.job(_known(5))
    report = await job
    assert (report.invited, report.already_invited) == (4, 1)
    assert len(bench.fake.candidates) == 5
    assert set(bench.invited.values()) == {1}
    assert job.plan.lookups is LookupStrategy.LIST
    (already,) = [o for o in report.outcomes if o.status is InviteStatus.ALREADY_INVITED]
    assert (already.row, already.candidate_id) == (1, ids[0])
    assert already.candidate_interview_id


@pytest.mark.parametrize(
    ("rule", "status", "error"),
    [
        ("skip", InviteStatus.SKIPPED, None),
        ("error", InviteStatus.FAILED, errors.InvalidRequestError),
    ],
)
async def test_existing_people_are_left_alone_otherwise(
    bench: Bench, rule: str, status: InviteStatus, error: type[Exception] | None
) -> None:
    """``skip`` passes them by, ``error`` fails their rows; the others are invited."""
    bench.fake.add_candidates(2)
    report = await bench.job(_known(4), on_existing=rule)
    assert (report.invited, report.counts[status]) == (2, 2)
    assert len(bench.fake.candidates) == 4
    found = [outcome for outcome in report.outcomes if outcome.status is status]
    assert [outcome.row for outcome in found] == [1, 2]
    assert [type(outcome.error) for outcome in found] == [error or type(None)] * 2


async def test_an_existing_person_without_opt_in_gets_no_sms(bench: Bench) -> None:
    """The server's record counts, since it is what the SMS needs."""
    bench.fake.add_candidates(1, sms_opt_in=False)
    rows = [{**row, "sms_opt_in": True} for row in _known(2)]
    report = await bench.job(rows, delivery_types=["sms"])
    assert (report.invited, report.failed) == (1, 1)
    (bad,) = report.failures
    assert isinstance(bad.error, errors.InviteNotDeliverableError)


async def test_few_rows_are_looked_up_each(bench: Bench) -> None:
    """Two rows against a list of many pages: two look-ups, and a page that reported its length."""
    bench.fake.add_candidates(1000)
    job = bench.job(_known(2, first=998) + _known(1, first=5000))
    report = await job
    assert report.invited == 3
    assert job.plan.lookups is LookupStrategy.EACH
    assert bench.sent.count(LIST) == 1 + 3
    assert len(bench.fake.candidates) == 1001


async def test_one_row_needs_no_page(bench: Bench) -> None:
    """For a single row the look-up is cheaper than asking how long the list is."""
    bench.fake.add_candidates(1000)
    await bench.job(_known(1))
    assert bench.sent.count(LIST) == 1


async def test_many_rows_have_the_list_read_once(bench: Bench) -> None:
    """Three hundred rows against three hundred people: the list's pages, and no look-ups."""
    bench.fake.add_candidates(300)
    job = bench.job(_known(400))
    report = await job
    assert report.invited == 400
    assert job.plan.lookups is LookupStrategy.LIST
    assert bench.sent.count(LIST) == 3
    assert len(bench.fake.candidates) == 400
    # Whether they are invited is asked the same way: this interview's list is short.
    assert bench.sent.count(INVITE_LIST) == 1


async def test_rows_of_unknown_number_cost_at_most_twice_the_best(bench: Bench) -> None:
    """A generator's look-ups turn into reading the list once they have cost as much."""
    bench.fake.add_candidates(1000)
    job = bench.job(iter(_known(60, first=940)))
    await job
    assert job.plan.lookups is LookupStrategy.LIST
    assert bench.sent.count(LIST) <= 2 * 10 + 16  # those on the wire at the turn


async def test_a_server_without_counts_is_asked_for_each(bench: Bench) -> None:
    """Where the list doesn't say how long it is, each row is looked up."""
    async with FakeGather(clock=bench.clock, page_counts=False, edition="B") as fake:
        other = Bench(fake, bench.clock)
        await other.open()
        fake.add_candidates(150)
        job = other.job(_known(160))
        report = await job
        assert report.invited == 160
        assert len(fake.candidates) == 160
        assert job.plan.lookups is LookupStrategy.EACH
        await other.aclose()


@pytest.mark.parametrize("status", [400, 409])
async def test_a_server_that_refuses_duplicates_is_understood(bench: Bench, status: int) -> None:
    """On a faulty wire, a refusal of what was carried out before is no failure."""
    async with FakeGather(clock=bench.clock, duplicate_status=status, seed=3) as fake:
        other = Bench(fake, bench.clock)
        await other.open()
        fake.chaos(errors_500_after=0.1, cut_after=0.1, cut_before=0.05)
        report = await other.job(people(60))
        assert report.failed == 0
        assert report.invited + report.already_invited == 60
        assert set(other.invited.values()) == {1}
        assert len(fake.candidates) == 60
        await other.aclose()


async def test_a_list_that_fails_is_read_on_later(bench: Bench, tmp_path: Path) -> None:
    """A page that can't be read costs a retry, not a person."""
    bench.fake.add_candidates(300)
    bench.fake.fail_next(status=500, times=6, path=LIST[1], method="GET")
    report = await bench.job(_known(400), journal=tmp_path / "j.db")
    assert report.invited == 400
    assert len(bench.fake.candidates) == 400


async def test_a_duplicate_that_the_server_refuses_is_found(bench: Bench) -> None:
    """409 for a person who came in between is met by the rule for existing people."""
    bench.fake.fail_next(
        status=409, path="/qsi/gather/candidates", method="POST", after_processing=True
    )
    report = await bench.job(_known(2), on_existing="reuse")
    assert report.invited == 2
    assert len(bench.fake.candidates) == 2


async def test_the_dry_run_says_what_lookups_may_cost(bench: Bench, tmp_path: Path) -> None:
    """Nothing is asked in a dry run: the plan has a look-up for each row with an id of its own."""
    job = bench.job(_known(4) + people(2, first=10), dry_run=True, journal=tmp_path / "j.db")
    report = await job
    assert bench.sent == []
    assert names_in(tmp_path) == []
    assert report.plan is not None
    assert report.plan.lookups is LookupStrategy.UNDECIDED
    assert (report.plan.writes, report.plan.lookup_requests, report.plan.requests) == (12, 5, 17)


class _Cache:
    """What a journal keeps of a list, in memory."""

    def __init__(self) -> None:
        self._listed: dict[tuple[str, str], Any] = {}

    async def cache_listed(self, kind: str, items: list[tuple[str, str, bool | None]]) -> None:
        self._listed |= {(kind, key): tuple(found) for key, *found in items}

    async def cached(self, kind: str, key: str) -> Any:
        return self._listed.get((kind, key))


@pytest.mark.parametrize("is_complete", [True, False])
async def test_absence_from_a_list_that_came_short_is_not_believed(is_complete: bool) -> None:
    """Anyone who a short list doesn't show is asked for one by one; a whole list is enough."""
    asked: list[str] = []

    async def look(key: str) -> ExistingRecord | None:
        asked.append(key)
        return ExistingRecord(f"id of {key}")

    async def fetch(number: int) -> Page[str]:
        return Page(items=("ada",), page=number, total=2, has_next=False, is_complete=is_complete)

    journal = cast("Journal", _Cache())
    index = ExistingIndex(
        kind="people",
        journal=journal,
        look=look,
        pager=lambda: Pager(fetch),
        read=lambda name: (name, ExistingRecord(f"id of {name}")),
        to_look=lambda: KeysLeft(own=5, derived=0),
    )
    assert await index.find("ada") == ExistingRecord("id of ada")
    assert await index.find("bob") == (None if is_complete else ExistingRecord("id of bob"))
    assert asked == ([] if is_complete else ["bob"])
