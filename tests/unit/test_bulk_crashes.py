"""The journal's state machine, driven through crashes at every point and in any order.

The real `RowTask` runs over the real SQL, without an event loop: each await
of a fake is a point where the test may let another row go on, or end the
process. What was on the wire then arrives at once, late, or never.
"""

import math
import sqlite3
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from gather_async.bulk.existing import ExistingRecord
from gather_async.bulk.journal_schema import JournalIdentity, migrate
from gather_async.bulk.journal_sql import SourceRow, save, upsert_rows
from gather_async.bulk.row_state import RowRecord, RowState, defer, to_candidate_pending, to_ended
from gather_async.bulk.row_task import InviteOptions, RowContext, RowTask
from gather_async.errors import GatherConnectionError, GatherError
from gather_async.models.candidate import Candidate, CandidateInterview, NewCandidate

_IN_FLIGHT = 5.0
_IDENTITY = JournalIdentity(
    journal_id="bulk-test", interview_id="interview", run=1, keeps_candidates=False
)


class Point:
    """A moment in which anything may happen."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@define
class World:
    """A server that commits late and lists late, a wire, and a clock."""

    draw: Callable[[list[Any]], Any]
    people: dict[str, list[str]] = field(factory=dict)
    invites: list[str] = field(factory=list)
    wire: list[Callable[[], object]] = field(factory=list)
    late: list[tuple[float, Callable[[], object]]] = field(factory=list)
    listed_at: dict[str, float] = field(factory=dict)
    """When a person or an invite is to be found, if not at once."""
    now: float = 1_000.0
    run: int = 0
    alive: dict[int, float] = field(factory=dict)
    """When each run ended."""
    is_calm: bool = False

    def create(self, external_id: str) -> str:
        """Make a person; the server would make two for two requests."""
        ids = self.people.setdefault(external_id, [])
        ids.append(f"{external_id}/{len(ids)}")
        return ids[-1]

    def invite(self, candidate_id: str) -> str:
        """Send an invite; the server would send two for two requests."""
        self.invites.append(candidate_id)
        return f"invite of {candidate_id}"

    def find_person(self, external_id: str) -> str | None:
        """Return who is listed under an external id."""
        ids = [each for each in self.people.get(external_id, []) if self._is_listed(each)]
        return ids[0] if ids else None

    def find_invite(self, candidate_id: str) -> str | None:
        """Return the invite that is listed for a person."""
        invite = f"invite of {candidate_id}"
        return invite if candidate_id in self.invites and self._is_listed(invite) else None

    def _is_listed(self, made: str) -> bool:
        return self.listed_at.get(made, 0.0) <= self.now

    def pass_time(self, seconds: float) -> None:
        """Let time go by; what is late arrives before its time is over."""
        self.now += seconds
        self.arrive(self.now)

    def arrive(self, now: float = math.inf) -> None:
        """Let the server see what is late and due by now."""
        due = [request for at, request in self.late if at <= now]
        self.late = [(at, request) for at, request in self.late if at > now]
        for request in due:
            request()

    def crash(self) -> None:
        """End the process: what is on the wire has its own fate."""
        self.alive[self.run] = self.now
        for request in self.wire:
            match self.draw(["at once", "late", "never"]):
                case "at once":
                    request()
                case "late":
                    self.late.append((self.now + _IN_FLIGHT, request))
        self.wire.clear()

    async def exchange(self, request: Callable[[], str]) -> str:
        """Carry one write out, or lose it or its answer."""
        await Point()
        self.pass_time(self.draw([0.0, 3_000.0]))  # for the quota
        self.wire.append(request)
        await Point()
        self.wire.remove(request)
        fates = ["answered", "cut", "unanswered", "listed late", "late"]
        fate = "answered" if self.is_calm else self.draw(fates)
        if fate == "late":
            self.late.append((self.now + _IN_FLIGHT, request))
        if fate in {"cut", "late"}:
            raise GatherConnectionError("cut", maybe_processed=True)
        made = request()
        if fate == "listed late":
            self.listed_at[made] = self.now + _IN_FLIGHT
        await Point()
        if fate != "answered":
            raise GatherConnectionError("no answer", maybe_processed=True)
        return made


@define
class FakeJournal:
    """Commits at once, with a point on each side."""

    connection: sqlite3.Connection
    world: World

    async def save(self, record: RowRecord) -> None:
        """Write a record."""
        await Point()
        save(self.connection, evolve(_IDENTITY, run=self.world.run), record)
        await Point()


@define
class FakeCandidates:
    """`client.candidates`, over the world."""

    world: World

    async def create(self, candidate: NewCandidate) -> Candidate:
        """Create a person."""
        assert candidate.external_id is not None
        external_id = candidate.external_id
        return Candidate(id=await self.world.exchange(lambda: self.world.create(external_id)))


@define
class FakeInterviews:
    """`client.candidate_interviews`, over the world."""

    world: World

    async def create(self, *, candidate_id: str, **_: Any) -> CandidateInterview:
        """Send an invite."""
        made = await self.world.exchange(lambda: self.world.invite(candidate_id))
        return CandidateInterview(id=made)


@define
class FakeDirectory:
    """Looks things up in the world."""

    seek: Callable[[str], str | None]

    async def look(self, key: str) -> ExistingRecord | None:
        """Ask about one key."""
        await Point()
        found = self.seek(key)
        await Point()
        return None if found is None else ExistingRecord(found)

    async def find(self, key: str, *, is_derived: bool = False) -> ExistingRecord | None:
        """Ask about one key, before anything was sent."""
        return await self.look(key)


@define
class Process:
    """One life of the job: rows that advance one point at a time."""

    world: World
    connection: sqlite3.Connection
    rows: list[NewCandidate]
    running: dict[int, Generator[None, None, None]] = field(factory=dict)

    def start(self) -> None:
        """Load every row from the journal and begin it."""
        self.world.run += 1
        identity = evolve(_IDENTITY, run=self.world.run)
        entries = [SourceRow(number, row) for number, row in enumerate(self.rows, start=1)]
        for record, row in zip(
            upsert_rows(self.connection, identity, entries), self.rows, strict=True
        ):
            if not record.has_ended:
                invite = RowTask(self._context(), record, row)
                self.running[record.row] = _steps(self._live, invite)

    def step(self, row: int) -> None:
        """Let one row go on to its next point."""
        try:
            next(self.running[row])
        except StopIteration:
            del self.running[row]

    def die(self) -> None:
        """End at this very point; nothing is tidied up."""
        for life in self.running.values():
            life.close()
        self.running.clear()
        self.world.crash()

    async def _live(self, row: RowTask) -> None:
        """Take a row to its end, as the job would: it is resumed when its time has come."""
        while not row.record.has_ended:
            try:
                await row.advance()
            except GatherError:
                await Point()
            if row.resume_at is not None:
                self.world.pass_time(max(0.0, row.resume_at - self.world.now))
                await Point()

    def _context(self) -> RowContext:
        world = self.world
        fakes: Any = {
            "journal": FakeJournal(self.connection, world),
            "candidates": FakeCandidates(world),
            "candidate_interviews": FakeInterviews(world),
            "people": FakeDirectory(world.find_person),
            "invited": FakeDirectory(world.find_invite),
        }
        return RowContext(
            invitation=InviteOptions(
                interview_id="interview",
                delivery_types=["email"],
                expiry_days=None,
                external_redirect_uri=None,
                on_existing="reuse",
                in_flight_timeout=_IN_FLIGHT,
            ),
            monotonic=lambda: world.now,
            in_flight_until={run: at + _IN_FLIGHT for run, at in world.alive.items()},
            is_stopping=lambda: False,
            requests_sent=lambda: len(world.wire),
            on_change=lambda before, after: None,
            **fakes,
        )


def _steps(
    live: Callable[[RowTask], Coroutine[Any, Any, None]], row: RowTask
) -> Generator[None, None, None]:
    """Yield at each point of a row's life."""
    yield from live(row).__await__()


def _new_journal() -> sqlite3.Connection:
    """Return an empty journal in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, 0)
    return connection


def _row(number: int, kind: str) -> NewCandidate:
    own = None if kind == "derived" else f"own-{number}"
    return NewCandidate("A", "B", f"p{number}@example.com", "+12025550123", own)


@given(
    kinds=st.lists(
        st.sampled_from(["derived", "own", "existing", "invited"]), min_size=1, max_size=4
    ),
    data=st.data(),
)
def test_everyone_is_invited_exactly_once_whatever_crashes(
    kinds: list[str], data: st.DataObject
) -> None:
    """However rows interleave and wherever the process dies, each person gets one invite."""
    world = World(lambda options: data.draw(st.sampled_from(options)))
    for number, kind in enumerate(kinds, start=1):
        if kind in {"existing", "invited"}:
            made = world.create(f"own-{number}")
            if kind == "invited":
                world.invite(made)
    with closing(_new_journal()) as connection:
        _live_and_die(kinds, data, world, connection)


def _live_and_die(
    kinds: list[str], data: st.DataObject, world: World, connection: sqlite3.Connection
) -> None:
    """Crash a few times at drawn points, then run to the end."""
    process = Process(
        world, connection, [_row(number, kind) for number, kind in enumerate(kinds, start=1)]
    )
    for _ in range(data.draw(st.integers(0, 8), label="crashes")):
        process.start()
        for _ in range(data.draw(st.integers(0, 25), label="points")):
            if process.running:
                process.step(data.draw(st.sampled_from(sorted(process.running))))
        process.die()
        world.pass_time(data.draw(st.sampled_from([0.0, 2.0, 60.0]), label="downtime"))
    world.is_calm = True
    process.start()
    while process.running:
        for row in sorted(process.running):
            process.step(row)
    world.arrive()

    assert sorted(world.invites) == sorted(ids[0] for ids in world.people.values())
    assert all(len(ids) == 1 for ids in world.people.values())
    assert len(world.people) == len(kinds)
    states = [state for (state,) in connection.execute("SELECT state FROM rows ORDER BY row")]
    expected = [
        RowState.ALREADY_INVITED if kind == "invited" else RowState.INVITED for kind in kinds
    ]
    assert states == expected


def test_a_crash_between_any_two_points_costs_no_second_invite() -> None:
    """Dying once at each of the points in turn, with the request on the wire arriving late."""
    for last_point in range(40):
        world = World(lambda options: "late" if "late" in options else options[0], is_calm=True)
        with closing(_new_journal()) as connection:
            process = Process(world, connection, [_row(1, "derived")])
            process.start()
            for _ in range(last_point):
                if process.running:
                    process.step(1)
            process.die()
            process.start()
            while process.running:
                process.step(1)
        world.arrive()
        assert len(world.invites) == 1, f"dying at point {last_point}"
        assert [len(ids) for ids in world.people.values()] == [1]


def test_a_row_that_has_ended_cannot_be_given_up() -> None:
    """The state machine refuses steps that its drawing doesn't show."""
    invited = RowRecord(row=1, state=RowState.INVITED)
    with pytest.raises(ValueError, match="has ended"):
        defer(invited, GatherError("no"))
    with pytest.raises(ValueError, match="doesn't lead on"):
        to_candidate_pending(invited)
    with pytest.raises(ValueError, match="doesn't lead on"):
        to_ended(RowRecord(row=1, state=RowState.SEEN), RowState.INVITED)
