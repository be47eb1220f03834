"""One look-up each, or the whole list once: whichever costs fewer requests. Pure."""

from enum import StrEnum

from attrs import frozen

__all__ = ["Costs", "Lookups", "choose"]


class Lookups(StrEnum):
    """How people who are there already are found."""

    NONE = "none"
    """Nobody can be there: no row has an external id of its own."""
    UNDECIDED = "undecided"
    """It depends on the length of the server's list, which isn't known yet."""
    EACH = "each"
    """One request for each row with an external id of its own."""
    LIST = "list"
    """The server's list, read once in pages of 100."""


@frozen(kw_only=True)
class Costs:
    """What is known when choosing."""

    looked: int
    """Single look-ups made so far."""
    to_look: int | None
    """Single look-ups still to come; None if unknown."""
    pages_left: int | None
    """Pages of the list still to read; None if the server doesn't say how many."""


def choose(costs: Costs) -> Lookups:
    """Return the cheaper way from here on.

    With the number of rows unknown, look-ups go on until they have cost as
    much as the rest of the list would; so the sum is never above twice the best.
    """
    if costs.pages_left is None:
        return Lookups.EACH
    if costs.to_look is not None:
        return Lookups.LIST if costs.pages_left < costs.to_look else Lookups.EACH
    return Lookups.LIST if costs.looked >= costs.pages_left else Lookups.EACH
