"""What the fake server accepts and refuses, field by field."""

from typing import Any

import pytest

from gather_async.testing.fake.messages import Refusal
from gather_async.testing.fake.validation import (
    BodyRule,
    Check,
    QueryRule,
    boolean,
    email,
    list_of,
    objects,
    one_of,
    phone,
    positive,
    text,
    uri,
)

LIST = QueryRule(
    texts=("externalId",),
    words={"status": ("hired",)},
    booleans={"archived": False},
    size="limit",
    default_size=50,
    paged=True,
)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (text, ["a", "é"], ["", "  ", None, 1, [], {}]),
        (email, ["a@b", "a.b+c@d.e"], ["a", "a@b@c", "a b@c", None, 1]),
        (phone, ["+1234567890", "+12"], ["1234567890", "+0123", "+1 202", "+1234567890123456", 1]),
        (uri, ["https://a.b/c", "app://x"], ["a.b/c", "https://", "http://[", None]),
        (boolean, [True, False], [0, 1, "true", None]),
        (positive, [1, 7], [0, -1, 1.0, True, "1"]),
        (one_of("email", "sms"), ["sms"], ["fax", "", None, ["sms"], {}]),
        (list_of(text), [[], ["a"]], ["a", None, [1], {}]),
        (list_of(text, least=1), [["a"]], [[]]),
        (
            objects(BodyRule({"id": text}, ["id"])),
            [[{"id": "1"}]],
            [[{}], [1], [{"id": "1", "x": 1}]],
        ),
    ],
)
def test_values_are_checked(check: Check, good: list[Any], bad: list[Any]) -> None:
    """Each check lets the right values pass, and gives a reason for each wrong one."""
    assert [check(value) for value in good] == [None] * len(good)
    assert all(check(value) for value in bad)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "title"),
        ({"title": "a", "invented": 1}, "invented"),
        ({"title": None}, "title"),
        ([], "body"),
        (None, "body"),
    ],
)
def test_a_body_is_refused_by_its_first_bad_field(body: Any, field: str) -> None:
    """The refusal is 400 and names field and reason."""
    with pytest.raises(Refusal) as caught:
        BodyRule({"title": text}, ["title"]).check(body)
    assert caught.value.status == 400
    assert caught.value.details is not None
    assert caught.value.details["field"] == field
    assert caught.value.details["reason"]


def test_a_query_is_read_with_its_defaults() -> None:
    """Missing parameters get their default, given ones their type."""
    assert LIST.check({}) == {"archived": False, "page": 1, "size": 50}
    query = {"archived": ["true"], "page": ["3"], "limit": ["100"], "externalId": ["x"]}
    expected = {"archived": True, "page": 3, "size": 100, "externalId": "x"}
    assert LIST.check(query | {"status": ["hired"]}) == expected | {"status": "hired"}


@pytest.mark.parametrize(
    "query",
    [
        {"page": ["0"]},
        {"page": ["-1"]},
        {"page": ["x"]},
        {"page": ["\uff11"]},
        {"limit": ["101"]},
        {"limit": ["0"]},
        {"size": ["5"]},
        {"pageSize": ["5"]},
        {"archived": ["yes"]},
        {"archived": ["True"]},
        {"status": ["fired"]},
        {"search": ["ann"]},
        {"externalId": ["1", "2"]},
    ],
)
def test_a_bad_query_is_refused(query: dict[str, list[str]]) -> None:
    """Unknown parameters, wrong values and repeated ones get 400."""
    with pytest.raises(Refusal) as caught:
        LIST.check(query)
    assert caught.value.status == 400
