"""The fake server's objects: ids, indexes, pages."""

import random
import uuid
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gather_async.clock import SystemClock
from gather_async.testing.fake.state import FakeOptions, ServerState, Table, iso, page_of

KEYS = [("a", "b"), ("a",), ("b",)]
VALUES = st.sampled_from(["x", "y", None])
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=30)


def world(seed: int) -> ServerState:
    """An empty state."""
    return ServerState(FakeOptions(), SystemClock(), random.Random(seed), lambda *_: None)


def test_ids_are_random_uuids_that_a_seed_repeats() -> None:
    """Ids look like the documentation's, never repeat, and depend on the seed alone."""
    first, again, other = world(1), world(1), world(2)
    ids = [first.new_id() for _ in range(500)]
    assert ids == [again.new_id() for _ in range(500)]
    assert not set(ids) & {other.new_id() for _ in range(500)}
    assert len(set(ids)) == 500
    for each in ids:
        parsed = uuid.UUID(each)
        assert str(parsed) == each
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122


@given(ROWS, VALUES, VALUES, VALUES)
def test_a_table_finds_what_a_scan_would(
    rows: list[tuple[Any, Any, Any]], a: str | None, b: str | None, c: str | None
) -> None:
    """Indexes change the cost of a search, never its result or order."""
    table = Table(KEYS)
    for number, (row_a, row_b, row_c) in enumerate(rows):
        table.add({"id": str(number), "a": row_a, "b": row_b, "c": row_c})
    wanted = {"a": a, "b": b, "c": c}
    scanned = [
        row
        for row in table.order
        if all(value is None or row[name] == value for name, value in wanted.items())
    ]
    assert list(table.find(**wanted)) == scanned


@given(st.integers(0, 60), st.integers(1, 20))
def test_pages_hold_every_row_once(count: int, size: int) -> None:
    """The pages 1 to ``totalPages`` are the rows in order, and the next one is empty."""
    rows: list[dict[str, Any]] = [{"id": str(number)} for number in range(count)]
    _, counts = page_of(rows, 1, size)
    seen = [
        row for page in range(1, counts["totalPages"] + 1) for row in page_of(rows, page, size)[0]
    ]
    assert seen == rows
    assert counts == {"page": 1, "limit": size, "total": count, "totalPages": -(-count // size)}
    assert not page_of(rows, counts["totalPages"] + 1, size)[0]


def test_archived_rows_are_shown_on_demand() -> None:
    """A hidden object is left out of lists unless they ask for archived ones."""
    table = Table()
    rows = [table.add({"id": str(number)}) for number in range(3)]
    table.hide(rows[1])
    table.hide(rows[1])
    assert table.hidden == 1
    assert [row["id"] for row in table.visible(table.order, archived=False)] == ["0", "2"]
    assert table.visible(table.order, archived=True) is table.order


def test_times_are_written_as_the_documentation_does() -> None:
    """ISO 8601 in UTC with milliseconds and Z."""
    assert iso(0.0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
