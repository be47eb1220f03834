"""Requests as values: no id or parameter can make a path or query mean something else."""

import enum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from gather_async.errors import InvalidRequestError
from gather_async.models.candidate import Candidate
from gather_async.models.enums import CandidateInterviewStatus
from gather_async.protocol import requests
from gather_async.protocol.requests import (
    PREFIX,
    Lookup,
    Request,
    encode_body,
    path_to,
    raw_path,
)

any_text = st.text(st.characters(exclude_categories=()))
hostile = st.text(alphabet="./\\?#%;:@&=+ \t\r\n\x00~a1-_\u2024\uff0f\u00e9\ud800")


DANGEROUS = [
    *("", " ", ".", "..", "a/b", "a\\b", "a?b", "a#b", "%2e%2e", "a;b"),
    *("a\r\nb", "a\x00", "a\ud800"),
]


def get(**query: Any) -> Request:
    """Return a read with this query."""
    return Request(method="GET", path="/p", query=query)


@given(any_text | hostile)
@example("../candidates")
@example("..")
@example("")
def test_an_id_is_refused_or_is_exactly_one_segment(id: str) -> None:
    """Whatever the id, the path has the segments it was given, and the server reads the id back."""
    try:
        path = path_to("questions", id, "results")
    except InvalidRequestError:
        return
    assert path.isascii()
    url = urlsplit("https://host" + path)
    assert url.query == ""
    assert url.fragment == ""
    assert url.netloc == "host"
    segments = [unquote(segment) for segment in url.path.split("/")]
    assert segments == ["", "qsi", "gather", "questions", id, "results"]
    assert ".." not in segments
    assert unquote(path).count("/") == 5
    # As the transport hands it to aiohttp, and as a normalising reader sees it.
    assert URL("https://host" + path, encoded=True).raw_path == path
    assert URL("https://host" + path).parts[-2] == id


@pytest.mark.parametrize(
    "id",
    [*DANGEROUS, None, 7, b"a", UUID(int=1), ["a"]],
    ids=repr,
)
def test_a_dangerous_id_is_refused(id: Any) -> None:
    """What could leave the resource, or isn't text, never becomes a path."""
    with pytest.raises(InvalidRequestError, match="`id` of a model"):
        path_to("questions", id)


@pytest.mark.parametrize(
    ("id", "segment"),
    [
        ("6f1c-AB_9", "6f1c-AB_9"),
        ("a b", "a%20b"),
        ("a.b", "a.b"),
        ("a+b&c=d", "a%2Bb%26c%3Dd"),
        ("\u00e9", "%C3%A9"),
    ],
)
def test_any_other_id_is_percent_encoded(id: str, segment: str) -> None:
    """Ids are opaque, so unusual ones work too."""
    assert path_to("questions", id) == f"{PREFIX}questions/{segment}"


@given(any_text | hostile | hostile.map("/qsi/gather/".__add__))
def test_a_raw_path_is_refused_or_kept_as_it_is(path: str) -> None:
    """The escape hatch can't be led to another host, above its path, or into a query."""
    try:
        encoded = raw_path(path)
    except InvalidRequestError:
        return
    assert unquote(encoded) == path
    url = urlsplit("https://host" + encoded)
    assert (url.netloc, url.query, url.fragment) == ("host", "", "")
    assert not {".", ".."} & set(unquote(encoded).split("/"))


@pytest.mark.parametrize(
    "path", [None, "", "qsi", "//evil.example/x", "/a/../b", "/a/.", "/a?b", "/a#b", "/%2e", "/\n"]
)
def test_a_senseless_raw_path_is_refused(path: Any) -> None:
    """A path that isn't one is refused before anything is sent."""
    with pytest.raises(InvalidRequestError):
        raw_path(path)


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_the_server_reads_back_the_query_that_was_given(query: dict[str, str]) -> None:
    """Encoding loses nothing and lets no parameter become another."""
    target = Request(method="GET", path="/p", query=query).target
    assert target.isascii()
    url = urlsplit(target)
    assert url.path == "/p"
    assert url.fragment == ""
    assert dict(parse_qsl(url.query, keep_blank_values=True)) == query
    assert len(parse_qsl(url.query, keep_blank_values=True)) == len(query)


class Mixed(str, enum.Enum):  # noqa: UP042 - what users have; its str() is not its value
    """A caller's own enum."""

    WORD = "word"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1.5, "1.5"),
        ("", ""),
        ("a b&c", "a+b%26c"),
        (CandidateInterviewStatus.HIRED, "hired"),
        (CandidateInterviewStatus("odd one"), "odd+one"),
        (Mixed.WORD, "word"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_a_parameter_is_spelled_as_the_wire_wants_it(value: Any, sent: str) -> None:
    """Booleans are JSON's, enum members their words."""
    assert get(x=value).target == f"/p?x={sent}"


def test_a_parameter_that_is_none_is_not_sent() -> None:
    """A filter that wasn't given leaves no trace."""
    assert get(a=None, b=1).target == "/p?b=1"
    assert get(a=None).target == "/p"
    assert get().target == "/p"


@pytest.mark.parametrize("value", [["a"], ("a", "b"), {"a": 1}, {"a"}, b"a", "\ud800", iter("a")])
def test_a_parameter_that_is_no_single_value_is_refused(value: Any) -> None:
    """A list would be sent in Python's spelling, a lone surrogate can't be sent at all."""
    with pytest.raises(InvalidRequestError):
        _ = get(x=value).target


def test_a_name_that_cannot_be_encoded_is_refused() -> None:
    """A lone surrogate in a parameter's name is our error, not Python's."""
    with pytest.raises(InvalidRequestError):
        _ = Request(method="GET", path="/p", query={"\ud800": 1}).target


@pytest.mark.parametrize(
    ("method", "is_write"),
    [
        *((method, False) for method in ("GET", "HEAD", "OPTIONS")),
        *((method, True) for method in ("POST", "PATCH", "PUT", "DELETE", "BREW")),
    ],
)
def test_every_method_that_is_not_known_to_be_safe_is_a_write(method: str, is_write: bool) -> None:
    """An unknown method is treated with the caution of a write."""
    assert Request(method=method, path="/p").is_write is is_write


def test_a_request_shows_method_and_path_only() -> None:
    """Query, body and look-up may hold personal data, and stay out of logs."""
    lookup = Lookup(
        request=Request(method="GET", path="/p", query={"externalId": "ada-1"}),
        read=lambda each: Request(method="GET", path=f"/p/{each}"),
        plural="candidates",
        singular="candidate",
        model=Candidate,
        filter={"externalId": "ada-1"},
        sent={"email": "ada@example.com"},
        before={"ada-1"},
    )
    request = Request(
        method="POST",
        path="/p",
        query={"q": "ada-1"},
        body={"phone": "+12025550123"},
        lookup=lambda: lookup,
    )
    for shown in (repr(request), str(request), repr(lookup)):
        assert "ada" not in shown
        assert "+1202" not in shown
    assert str(request) == "POST /p"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"a": [1, {"b": UUID(int=1)}]}, r"\$\.a\[1\]\.b is a UUID"),
        ({"a": {1: "x", 2: "y"}, ("k",): "z"}, r"\$ has a key that is not text"),
        ({"a": float("nan")}, "NaN"),
        ({"a": "\ud800"}, "surrogate"),
    ],
)
def test_a_body_that_is_no_json_is_refused_by_its_place(body: Any, problem: str) -> None:
    """The message names the place and the kind of what can't be sent, never its value."""
    with pytest.raises(InvalidRequestError, match=problem):
        encode_body(body)


_plain = st.none() | st.booleans() | st.integers() | any_text | st.floats()


@given(st.dictionaries(any_text | st.integers(), _plain, max_size=4))
@example({"a": 2**64})
@example({"a": float("inf")})
@example({"a": "\ud800"})
@example({CandidateInterviewStatus.HIRED: "x"})
@example({"a": CandidateInterviewStatus.HIRED})
@example({"a": '\x00\x1f\x7f\u2028"\\/\U0001f600'})
def test_both_encoders_write_alike(body: dict[Any, Any]) -> None:
    """With orjson and without, a body is the same bytes, or is refused with the same words."""
    written: list[Any] = []
    assert requests._fast is not None
    for fast in (requests._fast, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(requests, "_fast", fast)
            try:
                written.append(encode_body(body))
            except InvalidRequestError as error:
                written.append(str(error))
    assert written[0] == written[1]


def test_a_cycle_is_refused() -> None:
    """A body that holds itself can't be JSON."""
    body: dict[str, Any] = {}
    body["self"] = body
    with pytest.raises(InvalidRequestError, match="cycle"):
        encode_body(body)
