"""From the body of a 2xx answer to models: both envelopes, and an exact path for any nonsense."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gather_async.errors import ResponseDecodeError
from gather_async.models import (
    BulkUpdateResult,
    Candidate,
    CandidateInterview,
    Interview,
    InterviewResults,
    MessageGroup,
    Narrator,
    Question,
    Team,
)
from gather_async.protocol import responses
from gather_async.protocol.responses import (
    Response,
    decode_item,
    decode_items,
    find_list,
    parse_json,
    truncate,
)

KEPT = 65_536
ITEMS: list[tuple[str, type[Any]]] = [
    ("question", Question),
    ("interview", Interview),
    ("candidate", Candidate),
    ("candidateInterview", CandidateInterview),
    ("narrator", Narrator),
    ("messageGroup", MessageGroup),
    ("team", Team),
]
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "meta", "id", "question", "questions", "title"])
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


def read(body: bytes) -> Question:
    """Read a question as the resources do."""
    return decode_item(parse_json(body, is_write=False), "question", Question)


def fault(body: bytes) -> ResponseDecodeError:
    """Return the error that reading a question from this body gives."""
    with pytest.raises(ResponseDecodeError) as caught:
        read(body)
    return caught.value


@pytest.mark.parametrize(("singular", "model"), ITEMS)
@pytest.mark.parametrize("meta", [{}, {"meta": None}, {"meta": {"requestId": "r"}}])
def test_an_object_is_read_flat_or_nested(
    singular: str, model: type[Any], meta: dict[str, Any]
) -> None:
    """Both editions give the same object, with or without ``meta``."""
    thing = {"id": "x", "new": 1}
    flat = decode_item({"data": thing, **meta}, singular, model)
    nested = decode_item({"data": {singular: thing}, **meta}, singular, model)
    beside = decode_item({"data": {"success": True, singular: thing}, **meta}, singular, model)
    assert flat == nested == beside
    assert flat.id == "x"
    assert flat.extra == {"new": 1}


@pytest.mark.parametrize("singular", ["questions", "candidateInterviews"])
@pytest.mark.parametrize("meta", [{}, {"meta": None}, {"meta": {"pagination": {"total": 9}}}])
def test_a_list_is_read_bare_or_keyed(singular: str, meta: dict[str, Any]) -> None:
    """An array at ``data`` and one under the resource's name are the same list."""
    things = [{"id": "a"}, {"id": "b"}]
    bare = decode_items({"data": things, **meta}, singular, Question)
    keyed = decode_items({"data": {singular: things, "total": 2}, **meta}, singular, Question)
    assert bare == keyed == (Question(id="a"), Question(id="b"))
    nothing: list[Any] = [[], None, {singular: []}, {singular: None}]
    for empty in nothing:
        assert decode_items({"data": empty, **meta}, singular, Question) == ()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # A field that happens to be named like the object doesn't hide the object.
        ({"id": "q", "question": "Why?"}, {"question": "Why?"}),
        ({"id": "q", "question": None}, {"question": None}),
        ({"id": "q", "title": "t", "question": {"id": "other"}}, {"question": {"id": "other"}}),
        ({"id": "q", "question": {"text": "Why?"}}, {"question": {"text": "Why?"}}),
        # An envelope may say more than the object, even its id.
        ({"id": "q", "question": {"id": "q", "title": "t"}}, {}),
        ({"ok": 1, "question": {"id": "q"}}, {}),
    ],
)
def test_a_field_named_like_the_object_does_not_confuse(
    data: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The level that has more of the model's own fields is the object."""
    question = decode_item({"data": data}, "question", Question)
    assert question.id == "q"
    assert question.extra == expected


def test_results_without_an_id_are_found_on_either_level() -> None:
    """Parts of flat results may themselves be named results."""
    flat: dict[str, Any] = {"summaryStatus": "complete", "results": {"q1": "yes"}}
    for data in (flat, {"results": flat}, {**flat, "results": [1]}, {**flat, "results": None}):
        results = decode_item({"data": data}, "results", InterviewResults)
        assert results.summary_status == "complete"
    assert decode_item({"data": {"results": {}}}, "results", InterviewResults).extra == {}


def test_a_bulk_update_is_its_data() -> None:
    """The outcome has no id, and may sit under a name of its own."""
    outcome = {"success": True, "updatedCount": 2, "errors": [], "templateInterviewId": None}
    expected = BulkUpdateResult(success=True, updated_count=2)
    assert decode_item({"data": outcome}, "result", BulkUpdateResult) == expected
    nested = {"data": {"success": True, "result": outcome}}
    assert decode_item(nested, "result", BulkUpdateResult) == expected


@pytest.mark.parametrize(
    ("body", "path", "problem"),
    [
        (b"", "$", "not null"),
        (b" \r\n", "$", "not null"),
        (b"null", "$", "not null"),
        (b"[]", "$", "not an array"),
        (b'"ok"', "$", "not text"),
        (b"17", "$", "not a number"),
        (b"true", "$", "not a boolean"),
        (b"{}", "$.data", "an object"),
        (b'{"data": null}', "$.data", "an object"),
        (b'{"data": []}', "$.data", "an object"),
        (b'{"data": "x"}', "$.data", "an object"),
        (b'{"data": {}}', "$.data.id", "it is missing"),
        (b'{"data": {"id": null}}', "$.data.id", "text was expected, not null"),
        (b'{"data": {"id": 1}}', "$.data.id", "text was expected, not a number"),
        (b'{"data": {"question": null}}', "$.data.question", "an object"),
        (b'{"data": {"question": []}}', "$.data.question", "an object"),
        (b'{"data": {"question": {}}}', "$.data.question.id", "it is missing"),
        (b'{"data": {"question": {"id": 1}}}', "$.data.question.id", "text was expected"),
        (b'{"data": {"question": {"id": "q"}}', "$", "it is not JSON"),
        (b'{"data": {"question": {"id": "q', "$", "it is not JSON"),
        (b"<html><body>Bad gateway</body></html>", "$", "it is not JSON"),
        (b"OK", "$", "it is not JSON"),
        (b'{"data": {"id": "q"}} trailing', "$", "it is not JSON"),
        (b"{'data': 1}", "$", "it is not JSON"),
        (b"\xff\xfe\xfd", "$", "it is not JSON"),
        (b'{"data": {"id": "\xe9"}}', "$", "it is not JSON"),
        (b"\x00", "$", "it is not JSON"),
        (b'{"data": ' + b"9" * 5000 + b"}", "$", "it is not JSON"),
        (b"[" * 100_000, "$", "it is nested too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "$", "it is nested too deep"),
        (b'{"data":' * 100_000, "$", "it is nested too deep"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_nonsense_is_named_by_its_exact_path(body: bytes, path: str, problem: str) -> None:
    """Whatever the body is, the error says where and what is wrong, and the next step."""
    error = fault(body)
    assert error.path == path
    assert problem in str(error)
    assert f"at {path}:" in str(error)
    assert "report it to the vendor" in str(error)


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (None, "$"),
        ([], "$"),
        ([{"id": "a"}], "$"),
        ("x", "$"),
        ({}, "$.data"),
        ({"data": "x"}, "$.data"),
        ({"data": {}}, "$.data.questions"),
        ({"data": {"questions": {"id": "a"}}}, "$.data.questions"),
        ({"data": [{"id": "a"}, None]}, "$.data[1]"),
        ({"data": [{"id": "a"}, {"id": "b"}, {}]}, "$.data[2].id"),
        ({"data": {"questions": [{"id": "a"}, {"id": 1}]}}, "$.data.questions[1].id"),
    ],
)
def test_a_senseless_list_is_named_by_its_exact_path(payload: Any, path: str) -> None:
    """One bad item is named by its index; what is no list is an error, not an empty list."""
    with pytest.raises(ResponseDecodeError) as caught:
        decode_items(payload, "questions", Question)
    assert caught.value.path == path


def test_one_odd_field_does_not_cost_the_list() -> None:
    """99 others, and all other fields of the one, are read; the odd value is kept."""
    dates = ["2026-01-01T00:00:00Z"] * 57 + [""] + ["2026-01-01T00:00:00Z"] * 42
    payload = {"data": [{"id": f"q{n}", "createdAt": date} for n, date in enumerate(dates)]}
    questions = decode_items(payload, "questions", Question)
    assert len(questions) == 100
    assert [each for each in questions if each.created_at is None] == [questions[57]]
    assert questions[57].extra == {"createdAt": ""}


@pytest.mark.parametrize("brackets", range(880, 1000))
def test_a_body_that_can_just_be_read_gives_our_error_too(brackets: int) -> None:
    """Near the recursion limit, what could be read may not be written out again for the error."""
    body = b'{"data":' + b"[" * brackets + b"]" * brackets + b"}"
    error = fault(body)
    assert error.path in {"$", "$.data"}


@pytest.mark.parametrize("is_write", [True, False])
def test_the_error_of_a_write_says_that_it_may_have_happened(is_write: bool) -> None:
    """A 2xx to a write means that it was carried out, whatever its body."""
    with pytest.raises(ResponseDecodeError) as unread:
        parse_json(b"<html>", is_write=is_write)
    with pytest.raises(ResponseDecodeError) as unfit:
        decode_item({}, "question", Question, is_write=is_write)
    with pytest.raises(ResponseDecodeError) as no_list:
        decode_items({}, "questions", Question, is_write=is_write)
    for caught in (unread, unfit, no_list):
        assert caught.value.maybe_processed is is_write


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_passed_over(encoding: str) -> None:
    """A mark says how the text is encoded, and is no part of it."""
    assert read('{"data": {"id": "\u00e9"}}'.encode(encoding)).id == "\u00e9"


def test_an_error_keeps_the_start_of_the_body_and_shows_none_of_it() -> None:
    """``body`` is evidence, cut to 64 KiB; the message and the repr are safe to publish."""
    body = json.dumps({"data": {"email": "ada@example.com", "more": "x" * 2 * KEPT}}).encode()
    error = fault(body)
    assert error.body == body.decode()[:KEPT]
    assert fault(b"<p>ada@example.com" + b"\xff" * 9).body == "<p>ada@example.com" + "\ufffd" * 9
    for shown in (str(error), repr(error)):
        assert "ada" not in shown


def test_kept_text_never_fails() -> None:
    """A body that is cut inside a character is still text."""
    assert truncate(b"") == ""
    assert truncate("\u00e9".encode() * KEPT) == "\u00e9" * (KEPT // 2)
    assert truncate(b"a" + "\u00e9".encode() * KEPT).endswith("\ufffd")


def test_an_answer_shows_neither_headers_nor_body() -> None:
    """The repr of what the server sent is safe to publish."""
    shown = repr(Response(200, {"set-cookie": "secret"}, b"ada@example.com"))
    assert shown == "Response(status=200)"


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ({"data": {"candidates": [1]}}, ([1], "$.data.candidates")),
        ({"data": [1]}, ([1], "$.data")),
        ({"data": None}, ([], "$.data")),
        ({"data": {"candidates": None}}, ([], "$.data.candidates")),
        ({"data": {}}, (None, "$.data.candidates")),
        ({}, (None, "$.data")),
        ([1], (None, "$")),
        (None, (None, "$")),
    ],
)
def test_a_list_is_found_with_its_path(payload: Any, found: tuple[Any, str]) -> None:
    """A bare array is no envelope, so it isn't taken for a list."""
    assert find_list(payload, "candidates") == found


@given(json_values, st.sampled_from([*ITEMS, ("results", InterviewResults)]))
def test_any_json_gives_a_model_or_our_error(payload: Any, item: tuple[str, type[Any]]) -> None:
    """No answer makes decoding one object fail in another way."""
    singular, model = item
    try:
        decoded = decode_item(payload, singular, model)
    except ResponseDecodeError as error:
        path = error.path
    else:
        assert isinstance(decoded, model)
        return
    assert path.startswith("$")


@given(json_values)
def test_any_json_gives_models_or_our_error(payload: Any) -> None:
    """No answer makes decoding a list fail in another way."""
    try:
        decoded = decode_items(payload, "questions", Question)
    except ResponseDecodeError as error:
        path = error.path
    else:
        assert all(isinstance(each, Question) for each in decoded)
        return
    assert path.startswith("$")


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
@example(b'{"data": {"id": "\\ud800"}}')
@example(b'{"data": {"id": "\xed\xa0\x80"}}')
@example(b'{"data": {"id": "q", "x": NaN}}')
@example(b'{"data": {"id": "q", "x": 1e999}}')
@example(b'\xef\xbb\xbf{"data": {"id": "q"}}')
@example('{"data": {"id": "q"}}'.encode("utf-16"))
def test_any_bytes_give_a_model_or_our_error(body: bytes) -> None:
    """No body makes reading it fail in another way."""
    try:
        question = read(body)
    except ResponseDecodeError as error:
        path = error.path
    else:
        assert isinstance(question.id, str)
        return
    assert path.startswith("$")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b"[]", b'{"meta": 5}'])
def test_a_response_without_a_request_id_says_none(body: bytes) -> None:
    """Whatever the body is, asking for its request id raises nothing."""
    assert Response(200, {}, body).request_id is None


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5e3, true, false, null, "\u00e9\\n"]}',
        r'{"a": "\ud800"}',
        '{"a": NaN}',
        "[" * 2000 + "]" * 2000,
        '{"a": 1, "a": 2}',
        "18446744073709551615",
        '"\ud83d\ude00"',
        "{",
        "",
    ],
)
def test_both_parsers_read_alike(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """With orjson and without, a body means the same, or is refused in the same way."""
    read: list[Any] = []
    assert responses._fast is not None
    for fast in (responses._fast, None):
        monkeypatch.setattr(responses, "_fast", fast)
        try:
            read.append(repr(parse_json(text.encode("utf-8", "surrogatepass"), is_write=False)))
        except ResponseDecodeError as error:
            read.append(error.path)
    assert read[0] == read[1]
