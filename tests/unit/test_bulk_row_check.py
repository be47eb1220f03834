"""Which rows can be sent, and why the others can't."""

import sqlite3
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.bulk.row_check import RowCheck, UnreadableRow
from gather_async.errors import (
    GatherError,
    InvalidEmailError,
    InvalidPhoneNumberError,
    InvalidRequestError,
    InviteNotDeliverableError,
)
from gather_async.models.candidate import NewCandidate
from gather_async.phone import PhonePolicy

_GOOD = {
    "firstName": " Ada ",
    "last name": "Lovelace",
    "email": "ada@example.com",
    "phone": "+1 (202) 555-0123",
}
_CHECK = RowCheck(policy=PhonePolicy.E164, region=None, needs_opt_in=False)


def test_a_good_row_becomes_a_normalised_candidate() -> None:
    """Spaces go, the phone is E.164, numbers and words become what the field is."""
    row = {**_GOOD, "externalId": 17, "SMS opt-in": "Yes", "timezone": "", "shoe size": 42}
    assert _CHECK.read(row) == NewCandidate(
        "Ada", "Lovelace", "ada@example.com", "+12025550123", "17", None, True
    )


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"firstName": ""}, InvalidRequestError, "no first_name"),
        ({"email": None}, InvalidRequestError, "no email"),
        ({"phone": "555-0123"}, InvalidPhoneNumberError, "calling code"),
        ({"email": "absent"}, InvalidEmailError, "not an email"),
        ({"last name": ["x"]}, InvalidRequestError, "last_name must be text"),
        ({"smsOptIn": "maybe"}, InvalidRequestError, "yes or no"),
        ({"first_name": "Eve"}, InvalidRequestError, "Two columns mean first_name"),
        ({"firstName": "A\udc81"}, InvalidRequestError, "first_name holds characters"),
    ],
)
def test_a_bad_row_is_reported_by_its_fault(
    change: dict[str, Any], error: type[GatherError], words: str
) -> None:
    """Each fault has its error, and the words don't repeat what the row holds."""
    found = _CHECK.read({**_GOOD, **change})
    assert type(found) is error
    assert words in str(found)
    assert "Ada" not in str(found)


@pytest.mark.parametrize("answer", [None, False, "no"])
def test_a_text_message_needs_the_persons_word(answer: object) -> None:
    """Without opt-in, a row is rejected if invites go out by SMS too, and only then."""
    row = {**_GOOD, "smsOptIn": answer}
    sms = RowCheck(policy=PhonePolicy.E164, region=None, needs_opt_in=True)
    assert isinstance(sms.read(row), InviteNotDeliverableError)
    assert isinstance(_CHECK.read(row), NewCandidate)
    assert isinstance(sms.read({**_GOOD, "smsOptIn": True}), NewCandidate)


def test_national_numbers_follow_the_clients_region() -> None:
    """With a region, national notation is normalised as the client would."""
    check = RowCheck(policy=PhonePolicy.E164, region="US", needs_opt_in=False)
    read = check.read({**_GOOD, "phone": "(202) 555-0123"})
    assert isinstance(read, NewCandidate)
    assert read.phone == "+12025550123"


def test_the_clients_phone_policy_holds_for_ready_candidates_too() -> None:
    """A `NewCandidate` is E.164 already, and still rejected if the policy asks for more."""
    ready = NewCandidate("Ada", "Lovelace", "ada@example.com", "+1234567890")
    assert _CHECK.read(ready) is ready
    strict = RowCheck(policy=PhonePolicy.VALID, region=None, needs_opt_in=False)
    assert isinstance(strict.read(ready), InvalidPhoneNumberError)


def test_what_is_no_row_is_rejected_too() -> None:
    """A source may yield anything; nothing of it stops the job."""
    assert "mapping" in str(_CHECK.read(42))
    assert "torn" in str(_CHECK.read(UnreadableRow("The line is torn.")))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("externalId", 1001.0, "1001"),
        ("externalId", Decimal(7), "7"),
        ("externalId", float("nan"), None),
        ("externalId", Decimal("NaN"), None),
        ("externalId", "<NA>", None),
        ("externalId", "'007", "007"),
        ("externalId", '="007"', "007"),
        ("externalId", "\u200bX\u00a01\ufeff", "X 1"),
        ("phone", "+12025550123.0", "+12025550123"),
        ("phone", "'+12025550123", "+12025550123"),
        ("email", "\ufeffada@\u200bexample.com", "ada@example.com"),
        ("smsOptIn", 1.0, True),
        ("smsOptIn", float("nan"), None),
        ("last name", "Null", "Null"),
    ],
)
def test_what_a_spreadsheet_or_data_frame_wrote_is_read_right(
    name: str, value: object, expected: object
) -> None:
    """Whole floats, words and values for nothing, marks of text, and what can't be seen."""
    read = _CHECK.read({**_GOOD, name: value})
    assert isinstance(read, NewCandidate)
    field = {"externalId": "external_id", "smsOptIn": "sms_opt_in", "last name": "last_name"}
    assert getattr(read, field.get(name, name)) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("externalId", 1001.5),
        ("externalId", 1e17),
        ("externalId", float("inf")),
        ("externalId", 12025600000.0),
        ("externalId", "1001.0"),
        ("externalId", "1.5E+05"),
        ("externalId", "12,025"),
        ("externalId", "#N/A"),
        ("firstName", "#NAME?"),
        ("phone", "1.20256E+10"),
        ("phone", 12025600000.0),
        ("phone", 12025550123),
    ],
)
def test_what_a_spreadsheet_spoilt_is_refused_and_it_is_named(name: str, value: object) -> None:
    """Digits that may be lost are never sent, and the reason says who lost them."""
    found = _CHECK.read({**_GOOD, name: value})
    assert isinstance(found, GatherError)
    assert "spreadsheet" in str(found).casefold()


def test_rows_of_databases_and_readers_are_rows() -> None:
    """A row of SQLite has names too; a cell beyond the names of csv.DictReader is refused."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.row_factory = sqlite3.Row
        names = "first_name, last_name, email, phone"
        base.execute(f"CREATE TABLE people ({names})")
        ada = ("Ada", "Lee", "a@example.com", "+12025550123")
        base.execute("INSERT INTO people VALUES (?, ?, ?, ?)", ada)
        read = _CHECK.read(base.execute("SELECT * FROM people").fetchone())
    assert read == NewCandidate("Ada", "Lee", "a@example.com", "+12025550123")
    longer: dict[Any, Any] = {**_GOOD, None: ["x"]}
    assert "more cells" in str(_CHECK.read(longer))


@given(
    st.dictionaries(
        st.sampled_from([*_GOOD, "externalId", "smsOptIn"]),
        st.none() | st.text() | st.integers() | st.booleans() | st.lists(st.integers()),
    )
)
def test_any_row_is_a_candidate_or_our_error(row: dict[str, Any]) -> None:
    """No row makes the check raise."""
    assert isinstance(_CHECK.read(row), NewCandidate | GatherError)
