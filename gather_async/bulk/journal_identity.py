"""Which journal a row belongs to: it names rows that have no id, and hides those that have."""

import json
from hashlib import blake2b

from attrs import frozen

__all__ = ["Identity"]


@frozen(kw_only=True)
class Identity:
    """Which journal this is, and which run of it."""

    journal_id: str
    run: int
    """From 1, one more for each time a job opens the journal."""
    keeps_candidates: bool
    """Whether rows are written out, names and addresses included, or only their digests."""

    def external_id(self, row: int) -> str:
        """Return the external id of a row that has none of its own."""
        return f"{self.journal_id}-{row}"

    def digest(self, *parts: object) -> bytes:
        """Return what tells rows and addresses apart without being them."""
        text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
        return blake2b(text.encode(), key=self.journal_id.encode(), digest_size=16).digest()
