"""The one check of an email address."""

import re

from gather_async.errors import InvalidEmailError

__all__ = ["check_email"]

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
