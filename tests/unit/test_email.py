"""The email guard: a table of decisions, and that it repeats nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.errors import InvalidEmailError
from gather_async.validators import check_email

ACCEPTED = [
    "ada@example.com",
    "ada.lovelace+gather@mail.example.co.uk",
    "o'brien@example.org",
    "user_name@sub-domain.example.com",
    "jos\u00e9@b\u00fccher.example",
    "1@2.3",
    "a" * 242 + "@example.com",
]

REFUSED = [
    None,
    42,
    b"ada@example.com",
    "",
    "ada",
    "ada@",
    "@example.com",
    "ada@localhost",
    "ada@@example.com",
    "ada@example..com",
    ".ada@example.com",
    "ada.@example.com",
    "ada@.example.com",
    "ada@example.com.",
    " ada@example.com",
    "ada@example.com ",
    "ada@example.com\n",
    "ada lovelace@example.com",
    "Ada <ada@example.com>",
    "ada@example.com,bob@example.com",
    "ada@example.com;bob@example.com",
    "ada\u200b@example.com",
    "ada@exam\u00adple.com",
    "ada@example.com\u202c",
    "ada\u00a0b@example.com",
    "ada\x00@example.com",
    "ada\ud800@example.com",
    "a" * 243 + "@example.com",
]


@pytest.mark.parametrize("raw", ACCEPTED)
def test_a_plausible_address_is_returned_unchanged(raw: str) -> None:
    """What a mail server could take passes as it is."""
    assert check_email(raw) == raw


@pytest.mark.parametrize("raw", REFUSED, ids=repr)
def test_what_no_mail_server_takes_is_refused_without_repeating_it(raw: object) -> None:
    """An impossible address is refused, and the message doesn't show it."""
    with pytest.raises(InvalidEmailError) as caught:
        check_email(raw)  # type: ignore[arg-type]  # what an untyped caller may pass
    assert "ada" not in str(caught.value)
    assert "local@domain.tld" in str(caught.value)


@given(st.text())
def test_any_text_is_returned_unchanged_or_refused(raw: str) -> None:
    """No text makes the check fail in another way, and what passes can be sent."""
    try:
        checked = check_email(raw)
    except InvalidEmailError:
        return
    assert checked == raw
    assert raw.encode()
    assert raw.count("@") == 1
