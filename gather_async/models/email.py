"""The one check of an email address."""

import re

from gather_async.errors import InvalidEmailError

__all__ = ["check_email"]

# Deliberately loose: only what no mail server could take is refused.
_PLAUSIBLE = re.compile(r"[^@\s\x00-\x1f\x7f<>()\[\],;:\\\"]+@[^@\s\x00-\x1f\x7f<>()\[\],;:\\\"]+\.[^@\s.\x00-\x1f\x7f<>()\[\],;:\\\"]+")
_LONGEST = 254  # RFC 5321, section 4.5.3.1.3


def check_email(raw: object) -> str:
    """Return the address unchanged if it can be one.

    Raises:
        InvalidEmailError: It has no ``local@domain.tld`` form, holds spaces or
            control characters, or is longer than 254 characters.
    """
    if not isinstance(raw, str) or len(raw) > _LONGEST or not _PLAUSIBLE.fullmatch(raw):
        raise InvalidEmailError(
            "This is not an email address: give one address as local@domain.tld, "
            "with no spaces and no display name."
        )
    if ".." in raw or raw.startswith(".") or ".@" in raw or "@." in raw:
        raise InvalidEmailError("This email address has an empty part: look at its full stops.")
    return raw
