"""How far a job is: counted as it goes, so that telling costs nothing."""

from collections import Counter
from collections.abc import Iterable

from attrs import define, field

from gather_async.bulk.outcome import InviteStatus
from gather_async.bulk.row_state import Record, RowState, requests_left

__all__ = ["Tally"]


@define(eq=False)
class Tally:
    """Counts rows, outcomes and requests to come."""

    total: int | None = None
    """Rows in the source; None until known."""
    earlier: int = 0
    """Rows that an earlier run had ended."""
    read: int = 0
    """Rows read so far."""
    counts: Counter[InviteStatus] = field(factory=Counter)
    """Rows that ended, earlier runs' included, by status."""
    _requests: int = 0
    _own_ids: int = 0
    _own_ids_waiting: int = 0

    @property
    def has_own_ids(self) -> bool:
        """Return whether any row has an external id of its own."""
        return self._own_ids > 0

    @property
    def done(self) -> int:
        """Return how many rows have ended."""
        return self.counts.total()

    def enter(self, records: Iterable[Record]) -> None:
        """Count rows as they come from the journal, before anything happens to them."""
        for record in records:
            self.read += 1
            self._requests += requests_left(record)
            self._own_ids += record.own_id
            self._own_ids_waiting += _waits(record)

    def change(self, before: Record, after: Record) -> None:
        """Count a step of a row."""
        self._requests += requests_left(after) - requests_left(before)
        self._own_ids_waiting += _waits(after) - _waits(before)

    def end(self, record: Record, status: InviteStatus) -> None:
        """Count a row that has ended, or was given up for this run."""
        self.counts[status] += 1
        self._requests -= requests_left(record)
        self._own_ids_waiting -= _waits(record)

    def requests_left(self) -> int:
        """Return how many writes are to come, if nothing goes wrong: two for an unread row."""
        return self._requests + 2 * self._unread()

    def own_ids_left(self) -> int | None:
        """Return how many rows with an id of their own are to come; None if unknown.

        Rows that weren't read yet are taken to be like those that were.
        """
        if self.total is None:
            return None
        share = self._own_ids / self.read if self.read else 0.0
        return self._own_ids_waiting + round(self._unread() * share)

    def _unread(self) -> int:
        return 0 if self.total is None else max(0, self.total - self.read)


def _waits(record: Record) -> bool:
    """Return whether the row's person is still to be asked for."""
    return record.own_id and record.state is RowState.SEEN
