"""What the models' fields have in common: wire names, each copied and never derived; checks."""

import re
from collections.abc import Iterable
from typing import Any

from gather_async.errors import InvalidEmailError, InvalidRequestError

__all__ = ["Model", "WIRE_NAME", "check_email", "id_tuple", "optional_id_tuple", "wire"]

# Deliberately loose: only what no mail server could take is refused.
_LABEL = r"[^@.\s\x00-\x1f\x7f<>()\[\],;:\\\"]+"
_PLAUSIBLE = re.compile(rf"{_LABEL}(?:\.{_LABEL})*@{_LABEL}(?:\.{_LABEL})+")
_LONGEST = 254  # RFC 5321, section 4.5.3.1.3


def check_email(raw: str) -> str:
    """Return the address unchanged if it can be one.

    Raises:
        InvalidEmailError: It has no ``local@domain.tld`` form, holds spaces, control
            characters or invisible ones, or is longer than 254 characters.
    """
    if (
        isinstance(raw, str)
        and len(raw) <= _LONGEST
        and raw.isprintable()
        and _PLAUSIBLE.fullmatch(raw)
    ):
        return raw
    raise InvalidEmailError(
        "This is not an email address: give one address as local@domain.tld, "
        "with no spaces and no display name."
    )


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


class Model:
    """Base of what the API's answers are read into.

    It holds the place of weak references, so that a model's other slots are its fields alone
    and the codec can make a twin of it.
    """

    __slots__ = ("__weakref__",)


WIRE_NAME = "gather_async.wire_name"


def wire(name: str) -> dict[str, Any]:
    """Return attrs metadata for a field whose wire name differs from its own."""
    return {WIRE_NAME: name}
