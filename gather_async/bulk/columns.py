"""Which field a column's or key's name means."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from gather_async.errors import InvalidRequestError

__all__ = ["FIELDS", "REQUIRED", "field_of", "fields_of", "recognised"]

REQUIRED = ("first_name", "last_name", "email", "phone")
FIELDS = (*REQUIRED, "external_id", "timezone", "sms_opt_in")

_BY_LETTERS = {name.replace("_", ""): name for name in FIELDS} | {
    "emailaddress": "email",
    "phonenumber": "phone",
}


@lru_cache(maxsize=256)
def field_of(name: str) -> str | None:
    """Return the field that a name means; None for a column that isn't ours.

    ``firstName``, ``first_name``, ``First Name`` and ``FIRST-NAME`` mean the
    same, as do ``email address`` for ``email`` and ``phone number`` for ``phone``.

    >>> field_of("SMS opt-in")
    'sms_opt_in'
    """
    return _BY_LETTERS.get("".join(filter(str.isalnum, name.casefold())))


def recognised(names: Iterable[object]) -> int:
    """Return how many different fields these names mean."""
    return len({field_of(name) for name in names if isinstance(name, str)} - {None})


def fields_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row's values by our names of the fields; other keys are left out.

    Raises:
        InvalidRequestError: Two keys mean the same field, so that one would be lost.
    """
    values: dict[str, Any] = {}
    for key, value in row.items():
        name = field_of(key) if isinstance(key, str) else None
        if name is None:
            continue
        if name in values:
            raise InvalidRequestError(f"Two columns mean {name}: rename or remove one of them.")
        values[name] = value
    return values
