"""The one check of a phone number, made before a candidate exists.

The API wants E.164, and says nothing to anything else: the invite never arrives. So a
number is refused here, while a person can still correct it. Source: /guides/best-practices
"""

import re
import unicodedata
from contextlib import suppress
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

from attrs import frozen

from gather_async.errors import ConfigurationError, InvalidPhoneNumberError
from gather_async.validators import hide_arguments

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

__all__ = ["PhonePolicy", "known_region", "to_e164"]


class PhonePolicy(StrEnum):
    """Strictness of the check of a phone number before it is sent.

    Each policy demands what the one before it demands, and more.
    """

    E164 = "e164"
    """``+``, a real country calling code, 7 to 15 digits in all. Costs about 2 microseconds."""

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
    "spreadsheet number": (
        "A spreadsheet or data frame has made a decimal number of the phone number: format its"
        " column as text, and enter the number again with + and the country calling code."
    ),
    "two readings": (
        "A spreadsheet may have dropped the + or the first 0 of the phone number, which is"
        " another person's with it. Write it with + and the country calling code."
    ),
    "extension": "Leave out the extension; an invite can't be sent to one.",
    "letters": "Write digits instead of letters, and nothing else than the number.",
    "no country calling code": (
        "Start the phone number with + and the country calling code (not 00), or name the region"
        " of national numbers (region=, default_region= or --region). Spreadsheets drop the +."
    ),
    "unexpected characters": (
        "Give one phone number: + and digits; spaces, dots, hyphens and one pair of"
        " parentheses before the last digits may separate them."
    ),
    "unknown country calling code": "Correct the digits after +: no country has that code.",
    "no subscriber number": "Add the digits that follow the country calling code.",
    "fewer than 7 digits": "Complete the phone number: no subscriber has so few digits.",
    "more than 15 digits": "Shorten the phone number: E.164 has at most 15 digits in all.",
    "not possible in its country": (
        "Correct the phone number: its country has none of that length. Digits that are dialled"
        " before the area code inside the country don't follow the country calling code."
    ),
    "not assigned in its country": "Correct the phone number: its country assigns no such range.",
}

# The only text the server is sent.
_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
# What is left of international notation once Unicode's spaces, hyphens and
# invisible marks are mapped. A group in parentheses must not be the last: there
# it may be an extension. A slash may part two numbers, so it is not punctuation.
_GROUP: Final = r"(?:[ .-]*\( ?(?P<group>[0-9][0-9 ]*)\)[ .-]*(?=[0-9]))?[0-9 .-]*"
_INTERNATIONAL: Final = re.compile(
    rf"(?P<head>\+ ?[0-9]*|\( ?\+ ?[0-9]+ ?\)|\+\( ?[0-9]+ ?\)){_GROUP}"
)
_NATIONAL: Final = re.compile(rf"[0-9 .-]*?{_GROUP}")
# Decimals, exponents, thousands parted by commas, the negative result of a formula.
_DECIMAL: Final = re.compile(
    r"[+-]?[0-9]+(?:[.,][0-9]+)?[eE][+-]?[0-9]+|.*[0-9](?:[.,]0|[0-9]{2}[.,]00)"
    r"|[+-]?[0-9]{5,}[.,][0-9]{1,2}"
    r"|[+-]?[0-9]{1,3}(?:[ ,.'][0-9]{3})+[.,][0-9]{1,2}|[+-]?[0-9]{1,3}(?:[,'][0-9]{3})+|-[0-9]+"
)
_DECIMAL_SIGN: Final = re.compile(r"[.,'eE]|^-")
# What a spreadsheet may hold as a number, its thousands parted or not.
_CELL: Final = re.compile(r"[0-9]+|[0-9]{1,3}(?:[ .][0-9]{3})+")
_EXTENSION: Final = re.compile(r"[0-9][\s.)-]*(?:x|ext|extn|extension|#|;|,|~)", re.IGNORECASE)
_NOT_DIGITS: Final = re.compile(r"[^0-9]+")
# Dialled before mobile numbers from abroad until 2019, and still written.
_FORMER_PREFIXES: Final = {"52": "1"}
_NOTHING: Final = r"(?!)"
# The sign and the digits.
_SHORTEST: Final = 8
_LONGEST: Final = 16
# No number needs more text than this, however it is punctuated.
_LONGEST_TEXT: Final = 64


@hide_arguments
def to_e164(raw: object, region: str | None = None, policy: PhonePolicy = PhonePolicy.E164) -> str:
    """Return the phone number as E.164: ``+`` and 7 to 15 digits.

    International notation is normalised: spaces, dots, hyphens (Unicode's too),
    invisible marks of copied text, and parentheses. A national prefix after the
    country calling code, as in ``+44 (0)20``, ``+44 020`` or ``+370 (8) 5``, is
    dropped where the country has that prefix, and the rest must be possible there.
    National notation is read only with ``region``, must be possible there, and
    never guessed otherwise; nor is ``00`` taken for ``+``. The result has the digits
    of the text in their order, but for prefixes; given again, it is returned unchanged.

    What a spreadsheet made of a number (``4915123456789.0``, ``1.20256E+10``) is
    refused; so are bare digits that another person's number without ``+`` may be.

    Takes about 2 microseconds under `PhonePolicy.E164`. The first call imports
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
        number = _without_prefix(str.__str__(raw))
    else:
        number = _read(raw, region)
    if len(number) < _SHORTEST:
        _refuse("fewer than 7 digits")
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


def _calling_code(number: str) -> str:
    """Return the country calling code of ``+`` and digits. No code begins another."""
    codes = _calling_codes()
    for end in (2, 3, 4):
        if number[1:end] in codes:
            return number[1:end] if len(number) > end else _refuse("no subscriber number")
    _refuse("unknown country calling code")


@frozen
class _NumberingPlan:
    """The patterns of the numbers that follow one country calling code."""

    numbers: re.Pattern[str]
    """Every number of the country."""
    prefix: re.Pattern[str]
    """What may be dialled before a number inside the country; may match nothing."""
    transform: str | None
    """What a prefix and the groups in it become; None: nothing."""

    def may_be_prefixed(self, national: str) -> bool:
        """Return whether the digits begin with a national prefix, and are no number with it."""
        found = self.prefix.match(national)
        looks_so = (found is not None and found.end() > 0) or national[:1] == "0"
        return looks_so and not self.numbers.fullmatch(national)


@cache
def _numbering_plan(code: str) -> _NumberingPlan:
    """Return the plan of the main country with a code, which the smaller ones share."""
    from phonenumbers import PhoneMetadata, region_code_for_country_code

    region = region_code_for_country_code(int(code))
    metadata: Any = PhoneMetadata.metadata_for_region_or_calling_code(int(code), region)
    prefix = metadata.national_prefix_for_parsing or _FORMER_PREFIXES.get(code, _NOTHING)
    return _NumberingPlan(
        re.compile(metadata.general_desc.national_number_pattern),
        re.compile(prefix),
        metadata.national_prefix_transform_rule,
    )


def _without_prefix(number: str, group: str = "") -> str:
    """Return ``+`` and digits without the national prefix after the country calling code.

    Args:
        number: ``+`` and digits.
        group: The digits in parentheses that follow the country calling code.
    """
    code = _calling_code(number)
    plan, national = _numbering_plan(code), number[len(code) + 1 :]
    named = plan.prefix.fullmatch(group) if group else None
    if named and not named.lastindex:
        rest = national[len(group) :]
    elif not plan.may_be_prefixed(national):
        if len(group) != 1:
            return number
        # Italy's numbers keep their zero; parentheses say that it was meant to go.
        return _under(PhonePolicy.VALID if group == "0" else PhonePolicy.POSSIBLE, number)
    else:
        found = plan.prefix.match(national)
        rest = national if not found else national[found.end() :]
        if found and plan.transform and found.lastindex:
            rest = found.expand(plan.transform) + rest
    # Some countries' rules move digits about. Two prefixes have no one meaning.
    is_clear = national.endswith(rest) and not plan.may_be_prefixed(rest)
    if code in _FORMER_PREFIXES or not is_clear:
        _refuse("not possible in its country")
    return _require_possible(f"+{code}{rest}")


def _read(raw: object, region: str | None) -> str:
    """Return ``+`` and digits from any notation that is accepted."""
    text = _plain_text(raw)
    if "+" not in text:
        return _from_national(text, region)
    found = _INTERNATIONAL.fullmatch(text)
    if found is None:
        _refuse("unexpected characters")
    number = "+" + _NOT_DIGITS.sub("", text)
    if len(number) > _LONGEST:
        _refuse("more than 15 digits")
    group, head = _NOT_DIGITS.sub("", found["group"] or ""), _NOT_DIGITS.sub("", found["head"])
    if head in _calling_codes():
        return _without_prefix(number, group)
    if not head and group.startswith("0"):
        _refuse("not possible in its country")
    return _without_prefix(number)


def _from_national(text: str, region: str | None) -> str:
    """Return the number that this national notation means in the region."""
    import phonenumbers

    if not _NATIONAL.fullmatch(text):
        _refuse("unexpected characters")
    if region is None:
        _refuse("no country calling code")
    try:
        parsed = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        _refuse("not possible in its country")
    number, digits = _formatted(parsed), _NOT_DIGITS.sub("", text)
    # Some countries' rules put digits in, or take some out of the middle.
    if not digits.endswith(number.removeprefix(f"+{parsed.country_code}")):
        _refuse("not possible in its country")
    if _CELL.fullmatch(text) and digits[0] != "0":
        _require_one_reading(digits, region, parsed)
    # Refuses what begins with a national prefix even so, such as ten zeros.
    return _without_prefix(_require_possible(number))


def _require_one_reading(digits: str, region: str, national: "PhoneNumber") -> None:
    """Refuse a spreadsheet's number that may have lost its + or its first zero."""
    import phonenumbers

    shape = phonenumbers.format_number(national, phonenumbers.PhoneNumberFormat.NATIONAL)
    is_usual = _NOT_DIGITS.sub("", shape) == digits
    is_valid = phonenumbers.is_valid_number(national)
    # Digits as the country writes them are not mistaken for another country's number.
    for text in (f"+{digits}", f"0{digits}"):
        with suppress(phonenumbers.NumberParseException):
            other = phonenumbers.parse(text, region)
            is_near = other.country_code == national.country_code
            if other == national or (is_valid and text[0] == "0") or (is_usual and not is_near):
                continue
            is_possible = phonenumbers.is_possible_number(other) and is_near and not is_usual
            if is_possible or phonenumbers.is_valid_number(other):
                _refuse("two readings")


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
    if _DECIMAL_SIGN.search(text) and _DECIMAL.fullmatch(text):
        _refuse("spreadsheet number")
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


def _under(policy: PhonePolicy, number: str) -> str:
    """Return the number if it meets the policy.

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
    _require_possible(number)
    if policy is PhonePolicy.VALID and not phonenumbers.is_valid_number(
        phonenumbers.parse(number, None)
    ):
        _refuse("not assigned in its country")
    return number


def _require_possible(number: str) -> str:
    """Return the number, or refuse it: a country has such numbers, and reads it in one way."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        _refuse("not possible in its country")
    possible = phonenumbers.is_possible_number_with_reason(parsed)
    if _formatted(parsed) != number or possible != phonenumbers.ValidationResult.IS_POSSIBLE:
        _refuse("not possible in its country")
    return number


def _formatted(parsed: "PhoneNumber") -> str:
    """Return the number in E.164; no text if it has no such form."""
    import phonenumbers

    number = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    # Metadata of some countries lets more digits through than E.164 does.
    return number if _E164.fullmatch(number) else ""
