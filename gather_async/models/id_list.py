"""Lists of ids in what is to be created."""

from collections.abc import Iterable

from gather_async.errors import InvalidRequestError

__all__ = ["id_tuple", "optional_id_tuple"]


def id_tuple(ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ids as a tuple.

    Raises:
        InvalidRequestError: They are one text, which would be taken for a list of letters.
    """
    if isinstance(ids, str):
        raise InvalidRequestError("Ids go in a list, such as [team.id], not in one text.")
    return tuple(ids)


def optional_id_tuple(ids: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the ids as a tuple, or None."""
    return None if ids is None else id_tuple(ids)
