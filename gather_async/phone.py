"""The one check of a phone number, made before a candidate exists.

The API wants E.164, and says nothing when it gets something else: the invite
simply never arrives. So a number is refused here, while a person can still
correct it.

Source: /guides/best-practices
"""

import re
import unicodedata
from enum import StrEnum
from functools import cache
from typing import Final, NoReturn

from gather_async.errors import ConfigurationError, InvalidPhoneNumberError

__all__ = ["PhonePolicy", "known_region", "to_e164"]


class PhonePolicy(StrEnum):
    """How much must be true of a phone number before it is sent.

    Each policy demands what the one before it demands, and more.
    """

    E164 = "e164"
    """``+``, a real country calling code, at most 15 digits in all. Costs about a microsecond."""

    POSSIBLE = "possible"
    """And a length that exists in its country. Costs about 50 microseconds, as does `VALID`."""

    VALID = "valid"
    """And in a range that its country assigns, by the installed phonenumbers' metadata.

    Metadata ages: a range opened last month is refused until phonenumbers is updated.
    """


_ADVICE: Final = {
    "not text": "Give the phone number as text, such as '+12025550123'.",
    "empty": "Give a phone number: + and the country calling code first.",
    "too much text": "Give one phone number and nothing else.",
    "non-ASCII digits": "Write the phone number with the digits 0 to 9.",
    "extension": "Leave out the extension; an invite can't be sent to one.",
    "letters": "Write digits instead of letters, and nothing else than the number.",
    "no country calling code": (
        "Start the phone number with + and the country calling code (not 00), or name the region"
        " of national numbers (region=, default_region= or --region)."
    ),
    "unexpected characters": (
        "Give one phone number: + and digits; spaces, dots, hyphens and one pair of"
        " parentheses before the last digits may separate them."
    ),
    "unknown country calling code": "Correct the digits after +: no country has that code.",
    "no subscriber number": "Add the digits that follow the country calling code.",
    "more than 15 digits": "Shorten the phone number: E.164 has at most 15 digits in all.",
    "not possible in its country": "Correct the phone number: its country has none of that length.",
    "not assigned in its country": "Correct the phone number: its country assigns no such range.",
}

# The only text the server is sent.
_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
# What is left of international notation once Unicode's spaces, hyphens and
# invisible marks are mapped. A group in parentheses must not be the last: there
# it may be an extension. A slash may part two numbers, so it is not punctuation.
_INTERNATIONAL: Final = re.compile(
    r"(?:\+ ?[0-9]*|\( ?\+ ?[0-9]+ ?\))"
    r"(?:[ .-]*\( ?[0-9][0-9 ]*\)[ .-]*(?=[0-9]))?"
    r"[0-9 .-]*"
)
_NATIONAL: Final = re.compile(r"(?:[0-9 .-]*\( ?[0-9][0-9 ]*\)[ .-]*(?=[0-9]))?[0-9 .-]*")
_EXTENSION: Final = re.compile(r"[0-9][\s.)-]*(?:x|ext|extn|extension|#|;|,|~)", re.IGNORECASE)
_TRUNK_ZERO: Final = re.compile(r"\( ?0")
_NOT_DIGITS: Final = re.compile(r"[^0-9]+")
# The sign and 15 digits.
_LONGEST: Final = 16
# No number needs more text than this, however it is punctuated.
_LONGEST_TEXT: Final = 64


def to_e164(raw: object, region: str | None = None, policy: PhonePolicy = PhonePolicy.E164) -> str:
    """Return the phone number as E.164: ``+`` and 2 to 15 digits.

    International notation is normalised: spaces, dots, hyphens (Unicode's too),
    invisible marks of copied text, and parentheses. A zero that opens a group
    in parentheses, as in ``+44 (0)20``, is dropped where the country drops it,
    and the number must then be possible there. National notation is read only
    with ``region``, must be possible there, and never guessed otherwise; nor
    is ``00`` taken for ``+``. The result, given again, is returned unchanged.

    Takes about a microsecond under `PhonePolicy.E164`. The first call imports
    phonenumbers, which takes about 20 milliseconds.

    >>> to_e164("+1 (202) 555-0123")
    '+12025550123'
    >>> to_e164("020 7946 0958", region="GB")
    '+442079460958'

    Args:
        raw: One phone number. Anything but text is refused, not converted.
        region: Two-letter region in which national notation is read, such as
            ``"US"``. None refuses national notation.
        policy: How much must be true of the number.

    Raises:
        InvalidPhoneNumberError: It is not such a number; ``reason`` says why,
            and the message what to do. Neither repeats the number.
        ConfigurationError: There is no such region or policy.

    Source: /guides/best-practices
    """
    if region is not None:
        region = known_region(region)
    if isinstance(raw, str) and _E164.fullmatch(raw):
        number = str.__str__(raw)
    else:
        number = _read(raw, region)
    _require_calling_code(number)
    if policy is PhonePolicy.E164:
        return number
    return _under(policy, number)


def known_region(region: str) -> str:
    """Return the region in upper case, such as ``"US"``.

    Raises:
        ConfigurationError: phonenumbers knows no such two-letter region.
    """
    from phonenumbers import SUPPORTED_REGIONS

    upper = region.upper() if isinstance(region, str) else ""
    if upper not in SUPPORTED_REGIONS:
        raise ConfigurationError(
            "The region of national phone numbers must be one of ISO 3166's two-letter codes,"
            " such as 'US' or 'GB'."
        )
    return upper


def _refuse(reason: str) -> NoReturn:
    """Raise the error for one of the reasons."""
    raise InvalidPhoneNumberError(_ADVICE[reason], reason=reason) from None


@cache
def _calling_codes() -> frozenset[str]:
    """Return every country calling code in use, global services included."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

    return frozenset(str(code) for code in COUNTRY_CODE_TO_REGION_CODE)


def _require_calling_code(number: str) -> None:
    """Refuse what has no real calling code, or nothing behind it. No code begins another."""
    codes = _calling_codes()
    for end in (2, 3, 4):
        if number[1:end] in codes:
            if len(number) == end:
                _refuse("no subscriber number")
            return
    _refuse("unknown country calling code")


def _read(raw: object, region: str | None) -> str:
    """Return ``+`` and digits from any notation that is accepted."""
    text = _plain_text(raw)
    if "+" not in text:
        return _from_national(text, region)
    if not _INTERNATIONAL.fullmatch(text):
        _refuse("unexpected characters")
    number = "+" + _NOT_DIGITS.sub("", text)
    if len(number) > _LONGEST:
        _refuse("more than 15 digits")
    return _possible(number, None) if _TRUNK_ZERO.search(text) else number


def _from_national(text: str, region: str | None) -> str:
    """Return the number that this national notation means in the region."""
    if not _NATIONAL.fullmatch(text):
        _refuse("unexpected characters")
    if region is None:
        _refuse("no country calling code")
    return _possible(text, region)


def _plain_text(raw: object) -> str:
    """Return the text with ASCII spaces and hyphens only, or refuse what can't be one number."""
    if not isinstance(raw, str):
        _refuse("not text")
    text = str.__str__(raw)
    if len(text) > _LONGEST_TEXT:
        _refuse("too much text")
    if not text.isascii():
        text = "".join(map(_plain_character, text))
    text = text.strip()
    if not text:
        _refuse("empty")
    if _EXTENSION.search(text):
        _refuse("extension")
    if any(map(str.isalpha, text)):
        _refuse("letters")
    return text


def _plain_character(character: str) -> str:
    """Return what one character means in a phone number, by its Unicode category."""
    if character.isascii():
        return character
    match unicodedata.category(character):
        case "Zs":
            return " "
        case "Pd":
            return "-"
        case "Cf":  # direction marks and the like, which copied contacts are full of
            return ""
        case "Nd" | "No" | "Nl":
            _refuse("non-ASCII digits")
    # The minus sign is a mathematical symbol to Unicode.
    return "-" if character == "\N{MINUS SIGN}" else character


def _possible(text: str, region: str | None) -> str:
    """Return the number as phonenumbers reads it, if its country has such numbers."""
    return _under(PhonePolicy.POSSIBLE, _as_parsed(text, region))


def _under(policy: PhonePolicy, number: str) -> str:
    """Return the number as phonenumbers writes it, if it meets the policy.

    Raises:
        ConfigurationError: There is no such policy.
    """
    import phonenumbers

    try:
        policy = PhonePolicy(policy)
    except ValueError:
        known = ", ".join(f"PhonePolicy.{each.name}" for each in PhonePolicy)
        raise ConfigurationError(f"The phone policy must be one of {known}.") from None
    if policy is PhonePolicy.E164:
        return number
    settled = _as_parsed(number, None)
    parsed = phonenumbers.parse(settled, None)
    possible = phonenumbers.is_possible_number_with_reason(parsed)
    # A number that is read differently each time has no one meaning.
    unsettled = _as_parsed(settled, None) != settled
    if unsettled or possible != phonenumbers.ValidationResult.IS_POSSIBLE:
        _refuse("not possible in its country")
    if policy is PhonePolicy.VALID and not phonenumbers.is_valid_number(parsed):
        _refuse("not assigned in its country")
    return settled


def _as_parsed(text: str, region: str | None) -> str:
    """Return what phonenumbers makes of the text, in E.164."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        _refuse("not possible in its country")
    number = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    # Metadata of some countries lets more digits through than E.164 does.
    return number if _E164.fullmatch(number) else _refuse("not possible in its country")
