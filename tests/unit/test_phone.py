"""The phone guard: a table of decisions, and laws over any input."""

import pickle
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    PhoneMetadata,
    region_code_for_country_code,
)

from gather_async.errors import ConfigurationError, InvalidPhoneNumberError
from gather_async.phone import PhonePolicy, known_region, to_e164

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
CODES = frozenset(map(str, COUNTRY_CODE_TO_REGION_CODE))
# Brazil's carrier codes, after the zero; China's are five digits.
LONGEST_PREFIX = 5

ACCEPTED = [
    # The API's own example, which no country assigns.
    ("+1234567890", "+1234567890"),
    ("+12025550123", "+12025550123"),
    # Shapes that the default policy doesn't question: that is POSSIBLE's work.
    ("+1234567", "+1234567"),
    ("+123456789012345", "+123456789012345"),
    # Services that belong to no country have codes too.
    ("+80012345678", "+80012345678"),
    # Punctuation.
    ("+1 (202) 555-0123", "+12025550123"),
    ("+1(202)555-0123", "+12025550123"),
    ("+1.202.555.0123", "+12025550123"),
    ("+1-202-555-0123", "+12025550123"),
    ("+ 1 202 555 0123", "+12025550123"),
    ("(+44) 20 7946 0958", "+442079460958"),
    ("+(44) 20 7946 0958", "+442079460958"),
    # The ends of a CSV cell or a typed line.
    ("  +12025550123\t", "+12025550123"),
    ("+12025550123\n", "+12025550123"),
    ("+12025550123\r\n", "+12025550123"),
    # What word processors, web pages and copied contacts put in.
    ("+1\u00a0202\u202f555\u20110123", "+12025550123"),
    ("+1 202 555\u20130123", "+12025550123"),
    ("+1\u3000202\u2212555\u22120123", "+12025550123"),
    ("\u202a+12025550123\u202c", "+12025550123"),
    ("\u200f+1 202\u00ad555\u200b0123\u200e", "+12025550123"),
    ("\ufeff+12025550123", "+12025550123"),
    # A trunk zero in parentheses goes where the country drops it; Italy keeps it.
    ("+44 (0)20 7946 0958", "+442079460958"),
    ("+44(0)2079460958", "+442079460958"),
    ("+44 (020) 7946 0958", "+442079460958"),
    ("+49 (0) 30 901820", "+4930901820"),
    ("+39 (06) 6982 0000", "+390669820000"),
    ("+39 (0) 6 6982 0000", "+390669820000"),
    # So does any other national prefix, in parentheses or not, at once or apart.
    ("+4402079460958", "+442079460958"),
    ("+44 0 7911 123456", "+447911123456"),
    ("+49 0151 23456789", "+4915123456789"),
    ("+370 (8) 612 34567", "+37061234567"),
    ("+370 8 612 34567", "+37061234567"),
    ("+370 0 612 34567", "+37061234567"),
    ("+7 (8) 912 345 67 89", "+79123456789"),
    ("+7 8 912 345 67 89", "+79123456789"),
    ("+7 800 555 35 35", "+78005553535"),
    ("+375 (80) 29 123 45 67", "+375291234567"),
    ("+36 06 30 123 4567", "+36301234567"),
    ("+993 8 65 123456", "+99365123456"),
    ("+55 (0) 11 98765 4321", "+5511987654321"),
    ("+1 (1) 202 555 0123", "+12025550123"),
    # What looks like one, and is an area code or a part of the number.
    ("+36 (1) 234 5678", "+3612345678"),
    ("+225 07 12 34 56 78", "+2250712345678"),
    ("+54 9 11 2345 6789", "+5491123456789"),
    # Pairs of digits after dots are no decimals.
    ("+33.1.23.45.67.00", "+33123456700"),
]

REFUSED = [
    (None, "not text"),
    (12025550123, "not text"),
    (b"+12025550123", "not text"),
    (["+12025550123"], "not text"),
    ("", "empty"),
    (" \t\n", "empty"),
    ("\u200e\u00a0", "empty"),
    ("+1" + " " * 63 + "2", "too much text"),
    ("1" * 1_000_000, "too much text"),
    # National notation, an international prefix and a missing + are not guessed at.
    ("(202) 555-0123", "no country calling code"),
    ("12025550123", "no country calling code"),
    ("0044 20 7946 0958", "no country calling code"),
    ("011 44 20 7946 0958", "no country calling code"),
    # Digits that look right and are not.
    ("+1202555012\u0663", "non-ASCII digits"),
    ("\uff0b\uff11\uff12\uff10\uff12", "non-ASCII digits"),
    ("+1202555012\u00b3", "non-ASCII digits"),
    ("+1202555012\u2167", "non-ASCII digits"),
    # Extensions, pauses, second numbers.
    ("+1 202 555 0123 x45", "extension"),
    ("+1 202 555 0123x45", "extension"),
    ("+1 202 555 0123 ext. 45", "extension"),
    ("+1 202 555 0123 Extension 45", "extension"),
    ("+1 202 555 0123#45", "extension"),
    ("+12025550123,,45", "extension"),
    ("+12025550123;ext=45", "extension"),
    ("tel:+12025550123;ext=45", "extension"),
    ("+1 202 555 0123 (45)", "unexpected characters"),
    ("+1 202 555 0123/45", "unexpected characters"),
    ("+1 202 555 0123 +1 202 555 0124", "unexpected characters"),
    ("+1 202 555 0123\n+1 202 555 0124", "unexpected characters"),
    ("+1 202\t555 0123", "unexpected characters"),
    ("+1 202\x00555 0123", "unexpected characters"),
    # Words and vanity numbers.
    ("+1-800-FLOWERS", "letters"),
    ("tel:+1-202-555-0123", "letters"),
    ("+1 202 555 0123 \u0430", "letters"),
    ("none", "letters"),
    ("n/a", "letters"),
    # Strange signs.
    ("++12025550123", "unexpected characters"),
    ("1+2025550123", "unexpected characters"),
    ("+1 ((202)) 555-0123", "unexpected characters"),
    ("+1 (202 555-0123", "unexpected characters"),
    ("-", "no country calling code"),
    ("*+12025550123", "unexpected characters"),
    ("+1202555012\U0001f600", "unexpected characters"),
    ("\ud800+12025550123", "unexpected characters"),
    # Codes.
    ("+", "unknown country calling code"),
    ("+999123456", "unknown country calling code"),
    ("+210123456", "unknown country calling code"),
    ("+0123456789", "unknown country calling code"),
    ("+(0)20", "not possible in its country"),
    ("+1", "no subscriber number"),
    ("+44", "no subscriber number"),
    ("+358", "no subscriber number"),
    # Length.
    ("+1234567890123456", "more than 15 digits"),
    ("+1 (202) 555-0123 456 789", "more than 15 digits"),
    # America drops no zero, so no one knows what this one means.
    ("+1 (0)20 7946 0958", "not possible in its country"),
    ("+44 (0)2", "not possible in its country"),
    ("+34 (0) 612 345 678", "not possible in its country"),
    ("+39 (0) 333 123 4567", "not assigned in its country"),
    ("+52 (1) 55 1234 5678", "not possible in its country"),
    ("+52 1 55 1234 5678", "not possible in its country"),
    ("+5215512345678", "not possible in its country"),
    ("+7 (8) 912 345 678", "not possible in its country"),
    ("+49 00151 23456789", "not possible in its country"),
    ("+54 11 15 2345 6789", "not possible in its country"),
    ("+12", "fewer than 7 digits"),
    ("+123456", "fewer than 7 digits"),
    # What spreadsheets and data frames make of numbers.
    ("+4915123456789.0", "spreadsheet number"),
    ("+4915123456789.00", "spreadsheet number"),
    ("+49 15123456789.0", "spreadsheet number"),
    ("+1 202-555-0123.0", "spreadsheet number"),
    ("+1 (202) 555 0123,0", "spreadsheet number"),
    ("+33 1 23 45 67 89.0", "spreadsheet number"),
    ("+1.202.555.0123.00", "spreadsheet number"),
    ("4915123456789,0", "spreadsheet number"),
    ("1.20256E+10", "spreadsheet number"),
    ("+1,20256e+10", "spreadsheet number"),
    ("12025550123.0", "spreadsheet number"),
    ("12,025,550,123", "spreadsheet number"),
    ("12'025'550'123.00", "spreadsheet number"),
    ("-4915123", "spreadsheet number"),
]

NATIONAL = [
    ("(202) 555-0123", "US", "+12025550123"),
    ("2025550123", "us", "+12025550123"),
    ("1-202-555-0123", "US", "+12025550123"),
    ("020 7946 0958", "GB", "+442079460958"),
    ("0044 20 7946 0958", "GB", "+442079460958"),
    ("011 44 20 7946 0958", "US", "+442079460958"),
    ("06 6982 0000", "IT", "+390669820000"),
    # International notation is read as such, wherever it was found.
    ("+44 20 7946 0958", "US", "+442079460958"),
    # Whole numbers, as spreadsheets keep them.
    ("12025550123", "US", "+12025550123"),
    ("12.025.550.123", "US", "+12025550123"),
    ("6465550123", "US", "+16465550123"),
    ("393331234567", "IT", "+393331234567"),
    ("3912345678", "IT", "+393912345678"),
    ("442079460958", "GB", "+442079460958"),
    ("13812345678", "CN", "+8613812345678"),
    ("812345678", "ID", "+62812345678"),
]

NATIONAL_REFUSED = [
    ("555-0123", "US", "not possible in its country"),
    ("911", "US", "not possible in its country"),
    ("1", "US", "not possible in its country"),
    ("-", "US", "not possible in its country"),
    ("0000000000000000000000", "DE", "not possible in its country"),
    ("020 7946 0958 x3", "GB", "extension"),
    ("1-800-FLOWERS", "US", "letters"),
    ("030/901820", "DE", "unexpected characters"),
    ("020 (7946)", "GB", "unexpected characters"),
    # Rules of the country that put digits in, or take some out of the middle.
    ("011 15-2345-6789", "AR", "not possible in its country"),
    ("886377", "SM", "not possible in its country"),
    # A + may be lost: these are another person's numbers with it.
    ("4915123456789", "DE", "two readings"),
    ("4 915 123 456 789", "DE", "two readings"),
    ("15123456789", "DE", "two readings"),
    ("442079460958", "DE", "two readings"),
    # So may a first zero that belongs to the number.
    ("212345678", "IT", "two readings"),
    ("812345678.0", "ID", "spreadsheet number"),
]

regions = st.sampled_from([None, "US", "GB", "DE", "IT", "MX", "AR", "CI"])
policies = st.sampled_from(PhonePolicy)
looks_like_a_number = st.text("+0123456789 ()-./x\u200e\u2011", max_size=24)
e164_texts = st.builds(
    lambda code, rest: f"+{code}{rest}"[:16],
    st.sampled_from(sorted(COUNTRY_CODE_TO_REGION_CODE)),
    st.text("0123456789", min_size=1, max_size=14),
)
with_prefix = st.builds(
    lambda code, prefix, rest: f"+{code} {prefix} {rest}",
    st.sampled_from(sorted(COUNTRY_CODE_TO_REGION_CODE)),
    st.sampled_from(["0", "(0)", "1", "(1)", "8", "(8)", "06", "(80)", "(0 11)", "90"]),
    st.text("0123456789", min_size=5, max_size=11),
)
any_text = st.text(max_size=80) | looks_like_a_number | e164_texts
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.datetimes()
anything = any_text | st.recursive(
    scalars | any_text, lambda inner: st.lists(inner) | st.dictionaries(any_text, inner)
)


def _attempt(raw: Any, region: str | None, policy: PhonePolicy) -> str | None:
    """Return the number, or None if it was refused."""
    try:
        return to_e164(raw, region, policy)
    except InvalidPhoneNumberError:
        return None


@pytest.mark.parametrize(("raw", "expected"), ACCEPTED)
def test_international_notation_is_normalised(raw: str, expected: str) -> None:
    """International notation, however punctuated, gives the same E.164 text."""
    assert to_e164(raw) == expected


@pytest.mark.parametrize(("raw", "reason"), REFUSED)
def test_what_is_not_one_international_number_is_refused(raw: object, reason: str) -> None:
    """Anything but one international number is refused with the reason."""
    with pytest.raises(InvalidPhoneNumberError) as caught:
        to_e164(raw)
    assert caught.value.reason == reason


@pytest.mark.parametrize(("raw", "region", "expected"), NATIONAL)
def test_national_notation_is_read_in_its_region(raw: str, region: str, expected: str) -> None:
    """With a region, national notation gives the number that is meant there."""
    assert to_e164(raw, region) == expected


@pytest.mark.parametrize(("raw", "region", "reason"), NATIONAL_REFUSED)
def test_national_notation_must_be_possible(raw: str, region: str, reason: str) -> None:
    """A region is no leave to guess: the number must be possible in it."""
    with pytest.raises(InvalidPhoneNumberError) as caught:
        to_e164(raw, region)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("policy", "raw", "expected"),
    [
        (PhonePolicy.POSSIBLE, "+12025550123", "+12025550123"),
        # 200 555 is no range, but has the length of one.
        (PhonePolicy.POSSIBLE, "+12000000000", "+12000000000"),
        (PhonePolicy.VALID, "+12025550123", "+12025550123"),
        (PhonePolicy.VALID, "+442079460958", "+442079460958"),
        (PhonePolicy.VALID, "+80012345678", "+80012345678"),
        # A zero that the country drops is dropped, parentheses or not.
        (PhonePolicy.POSSIBLE, "+4402079460958", "+442079460958"),
    ],
)
def test_stricter_policies_accept(policy: PhonePolicy, raw: str, expected: str) -> None:
    """POSSIBLE asks for a length, VALID for a range that the country assigns."""
    assert to_e164(raw, policy=policy) == expected


@pytest.mark.parametrize(
    ("policy", "raw", "reason"),
    [
        (PhonePolicy.POSSIBLE, "+1234567890", "not possible in its country"),
        (PhonePolicy.POSSIBLE, "+120255501234", "not possible in its country"),
        # Seven digits can be dialled within an area only.
        (PhonePolicy.POSSIBLE, "+15550123", "not possible in its country"),
        # Two zeros: dropping one leaves another, so the number has no one meaning.
        (PhonePolicy.POSSIBLE, "+44002079460958", "not possible in its country"),
        (PhonePolicy.VALID, "+1234567890", "not possible in its country"),
        (PhonePolicy.VALID, "+12000000000", "not assigned in its country"),
    ],
)
def test_stricter_policies_refuse(policy: PhonePolicy, raw: str, reason: str) -> None:
    """POSSIBLE refuses lengths that a country doesn't have, VALID also unassigned ranges."""
    with pytest.raises(InvalidPhoneNumberError) as caught:
        to_e164(raw, policy=policy)
    assert caught.value.reason == reason


@pytest.mark.parametrize("region", ["XX", "", "USA", "United States", "001", "\u0661", 44])
def test_an_unknown_region_is_a_configuration_error(region: Any) -> None:
    """A region that doesn't exist is refused, even where the number doesn't need one."""
    with pytest.raises(ConfigurationError, match="ISO 3166"):
        to_e164("+12025550123", region)


def test_a_known_region_is_returned_in_upper_case() -> None:
    """A region may be written in lower case."""
    assert known_region("gb") == "GB"


@pytest.mark.parametrize("policy", ["strict", None, 1])
def test_an_unknown_policy_is_a_configuration_error(policy: Any) -> None:
    """A policy that doesn't exist is refused."""
    with pytest.raises(ConfigurationError, match=r"PhonePolicy\.E164"):
        to_e164("+12025550123", policy=policy)


@pytest.mark.parametrize("policy", list(PhonePolicy))
def test_a_policy_may_be_given_by_its_word(policy: PhonePolicy) -> None:
    """The word of a policy, as a settings file has it, stands for the policy."""
    word: Any = policy.value
    assert to_e164("+442079460958", policy=word) == "+442079460958"


def test_the_result_is_plain_text() -> None:
    """A subclass of str is accepted, and what comes out is str itself."""

    class Phones(StrEnum):
        OFFICE = "+12025550123"
        HOTLINE = "+1 202 555 0124"

    assert [type(to_e164(phone)) for phone in Phones] == [str, str]


@pytest.mark.parametrize("raw", [raw for raw, _ in REFUSED if isinstance(raw, str)])
def test_the_error_never_repeats_the_number(raw: str) -> None:
    """Neither the message, nor the reason, nor a chained error shows what was given."""
    with pytest.raises(InvalidPhoneNumberError) as caught:
        to_e164(raw)
    shown = f"{caught.value} {caught.value.reason} {caught.value!r}"
    digits = re.findall(r"[0-9]{3,}", raw)
    allowed = re.findall(r"[0-9]{3,}", "'+12025550123' 3166")
    assert not [group for group in digits if group in shown and group not in allowed]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_error_survives_pickling() -> None:
    """The error keeps its reason on the way through a process pool."""
    with pytest.raises(InvalidPhoneNumberError) as caught:
        to_e164("+999")
    assert pickle.loads(pickle.dumps(caught.value)).reason == "unknown country calling code"


def test_the_table_in_the_documents_is_what_the_guard_does() -> None:
    """Each notation in the table of docs/phone-numbers.md is read or refused as it says."""
    page = Path(__file__).parents[2] / "docs" / "phone-numbers.md"
    lines = page.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \| (`.+?`|refused) \|", lines, re.MULTILINE)
    assert len(rows) >= 10
    for written, expected in rows:
        texts, _, region = written.partition(" with `default_region=")
        for text in re.findall("`(.+?)`", texts):
            number = _attempt(text, region.strip('"`') or None, PhonePolicy.E164)
            assert number == (None if expected == "refused" else expected.strip("`")), text


@given(raw=anything, region=regions, policy=policies)
@example(raw="+12025550123\n", region=None, policy=PhonePolicy.E164)
def test_anything_gives_e164_or_the_error(
    raw: object, region: str | None, policy: PhonePolicy
) -> None:
    """Whatever is given, E.164 text or our error comes out."""
    number = _attempt(raw, region, policy)
    assert number is None or E164.fullmatch(number)


@given(raw=any_text, region=regions, policy=policies, other=regions)
@example(raw="0000000000", region="US", policy=PhonePolicy.E164, other=None)
def test_the_guard_is_idempotent(
    raw: str, region: str | None, policy: PhonePolicy, other: str | None
) -> None:
    """What the guard returned, it returns again, in whatever region."""
    number = _attempt(raw, region, policy)
    if number is not None:
        assert to_e164(number, other, policy) == number


@given(number=e164_texts)
@example(number="+1234567890")
def test_the_default_policy_takes_what_has_no_prefix(number: str) -> None:
    """A real code and 7 to 15 digits in all: the default policy refuses nothing but prefixes."""
    code = next(number[1:end] for end in (2, 3, 4) if number[1:end] in CODES)
    metadata: Any = PhoneMetadata.metadata_for_region_or_calling_code(
        int(code), region_code_for_country_code(int(code))
    )
    prefix = re.match(metadata.national_prefix_for_parsing or "(?!)", number[len(code) + 1 :])
    may_have_prefix = number.startswith((f"+{code}0", "+521")) or (prefix and prefix.end())
    if len(number) < 8:
        assert _attempt(number, None, PhonePolicy.E164) is None
    elif not may_have_prefix:
        assert to_e164(number) == number


@given(raw=any_text | with_prefix, policy=policies)
@example(raw="+370 (8) 612 34567", policy=PhonePolicy.E164)
@example(raw="+855000000000", policy=PhonePolicy.E164)
def test_no_digit_is_lost_but_a_national_prefix(raw: str, policy: PhonePolicy) -> None:
    """The result has the digits of the text in order, less a prefix after the calling code."""
    number = _attempt(raw, None, policy)
    if number is None:
        return
    digits, result = re.sub("[^0-9]", "", raw), number[1:]
    code = next(result[:end] for end in (1, 2, 3) if result[:end] in CODES)
    assert digits.startswith(code)
    assert digits.endswith(result[len(code) :])
    assert len(digits) - len(result) <= LONGEST_PREFIX


@given(raw=any_text, region=regions, policy=policies)
def test_national_digits_keep_their_order(
    raw: str, region: str | None, policy: PhonePolicy
) -> None:
    """In a region too, what follows the calling code is the end of the digits given."""
    number = _attempt(raw, region, policy)
    if number is not None:
        code = next(number[1:end] for end in (2, 3, 4) if number[1:end] in CODES)
        assert re.sub("[^0-9]", "", raw).endswith(number[len(code) + 1 :])


@given(number=e164_texts)
def test_a_stricter_policy_takes_less(number: str) -> None:
    """What VALID takes, POSSIBLE takes; what POSSIBLE takes, E164 takes."""
    valid = _attempt(number, None, PhonePolicy.VALID)
    possible = _attempt(number, None, PhonePolicy.POSSIBLE)
    assert valid is None or valid == possible
    assert possible is None or to_e164(possible) == possible
    assert possible is None or possible == _attempt(number, None, PhonePolicy.E164)


@given(
    number=e164_texts,
    gaps=st.lists(st.sampled_from(["", " ", "-", ".", "\u00a0", "\u2011", "\u200e"]), min_size=16),
)
def test_punctuation_never_changes_the_number(number: str, gaps: list[str]) -> None:
    """Separators between any digits leave the same number, unless it looks like a decimal."""
    spread = "".join(a + b for a, b in zip(number, gaps, strict=False))
    plain = _attempt(number, None, PhonePolicy.E164)
    assert _attempt(spread, None, PhonePolicy.E164) in {plain, None}
    if not re.search(r"\d\.\d{1,2}[ -.\u2011\u00a0]*$", spread.replace("\u200e", "")):
        assert _attempt(spread, None, PhonePolicy.E164) == plain
