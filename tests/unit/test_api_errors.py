"""From an answer outside 2xx to the right error, with a message that can be published."""

import json
import pickle
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gather_async.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    GatherAPIError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
)
from gather_async.protocol.api_errors import api_error, seconds_until_reset, server_time
from gather_async.protocol.responses import Response, is_error_envelope

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
CALL = "POST /qsi/gather/candidates"


def envelope(**error: Any) -> bytes:
    """Return the documented body of an error."""
    return json.dumps({"error": error, "meta": {"requestId": "req-1"}}).encode()


def failed(
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    is_write: bool = True,
    secret: str = "",
) -> GatherAPIError:
    """Return the error of an answer."""
    answer = Response(status, headers or {}, body)
    return api_error(answer, CALL, is_write=is_write, now=NOW, secret=secret)


def quota(reset: object, **more: str) -> dict[str, str]:
    """Return rate limit headers as aiohttp's or a test's mapping has them."""
    return {
        "x-ratelimit-limit": "100",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(reset),
        **more,
    }


def iso(seconds: float) -> str:
    """Return a time this long after NOW, as the server writes it."""
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


@pytest.mark.parametrize(
    ("status", "kind", "step"),
    [
        (301, GatherAPIError, "Redirects are not followed: check base_url."),
        (400, BadRequestError, "Correct the request"),
        (401, AuthenticationError, "Check the API key (GATHER_API_KEY)"),
        (403, PermissionDeniedError, "ask an administrator"),
        (404, NotFoundError, "Check the id"),
        (408, GatherAPIError, "Try again later."),
        (409, ConflictError, "read it first"),
        (422, GatherAPIError, "Correct the request"),
        (429, RateLimitedError, "`.reset_at`"),
        (500, ServerError, "try again later"),
        (503, ServerError, "try again later"),
        (599, ServerError, "try again later"),
    ],
)
def test_the_status_decides_the_error_and_the_next_step(
    status: int, kind: type[GatherAPIError], step: str
) -> None:
    """Text never decides; a status that isn't documented goes by its class."""
    for body in (b"", envelope(code="NOT_FOUND", message="Gone")):
        error = failed(status, body, is_write=False)
        assert type(error) is kind
        assert error.status == status
        assert step in str(error)
        assert str(error).startswith(f"{CALL}: {status} ")


def test_the_documented_envelope_is_read_whole() -> None:
    """Code, message, details and request id are attributes; the message names the field."""
    details = {"field": "email", "reason": "is taken", "seen": [1]}
    body = envelope(code="VALIDATION_ERROR", message="Invalid request", details=details)
    error = failed(400, body, {"X-Thing": "1"})
    assert error.code == "VALIDATION_ERROR"
    assert error.message == "Invalid request"
    assert error.details == details
    assert error.request_id == "req-1"
    assert error.body == body.decode()
    assert error.headers == {"x-thing": "1"}
    assert str(error) == (
        "POST /qsi/gather/candidates: 400 VALIDATION_ERROR: Invalid request; field: email; "
        "reason: is taken. Correct the request: `.details` may name the field."
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body></body></html>",
        b"null",
        b"[]",
        b'" "',
        b"17",
        b'{"error": " "}',
        b'{"error": null, "meta": null}',
        b'{"error": {"code": true, "message": [], "details": null}, "meta": {"requestId": 7}}',
        b'{"error": {"code": "NOT_F',
        b"[" * 100_000,
        b"\xff",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_any_other_body_gives_the_standard_phrase(body: bytes) -> None:
    """What says nothing is kept as text, and the status speaks for itself."""
    error = failed(404, body)
    assert (error.code, error.message, dict(error.details)) == (None, "Not Found", {})
    assert error.request_id is None
    assert error.body == body.decode("utf-8", "replace")[:65_536]
    assert str(error).startswith(f"{CALL}: 404 Not Found: Not Found. Check the id")


FAULTS = [{"loc": ["body", "email"], "msg": "field required", "input": "ada@example.com"}]
JSON_API = [{"code": "x", "detail": "is taken", "source": {"pointer": "/data/email"}}]


@pytest.mark.parametrize(
    ("body", "code", "message", "details"),
    [
        # Gateways: AWS, Kong, Spring, Apigee's kind.
        ({"message": "Forbidden"}, None, "Forbidden", {}),
        ({"Message": "Denied"}, None, "Denied", {}),
        ({"message": "no Route", "request_id": "req-7"}, None, "no Route", {}),
        (
            {"status": 404, "error": "Not Found", "message": "No user", "path": "/x"},
            None,
            "No user",
            {"path": "/x"},
        ),
        # Nest, OAuth, Google.
        ({"statusCode": 400, "message": ["a", "b"], "error": "Bad Request"}, None, "a; b", None),
        (
            {"error": "invalid_client", "error_description": "Unknown client"},
            "invalid_client",
            "Unknown client",
            {},
        ),
        ({"error": "It is closed."}, None, "It is closed.", {}),
        (
            {"error": {"code": 404, "message": "Gone", "status": "NOT_FOUND", "details": [1]}},
            "NOT_FOUND",
            "Gone",
            {"details": [1]},
        ),
        ({"error": {"code": 17, "message": "No"}}, "17", "No", {}),
        # FastAPI, Django REST framework.
        ({"detail": "Not found."}, None, "Not found.", {}),
        ({"detail": FAULTS}, None, "body.email: field required", {"detail": FAULTS}),
        (
            {"email": ["Taken.", "Bad."]},
            None,
            "email: Taken.; email: Bad.",
            {"email": ["Taken.", "Bad."]},
        ),
        # RFC 9457, ASP.NET, JSON:API, Rails.
        (
            {"type": "about:blank", "title": "Bad", "detail": "No such field", "status": 400},
            None,
            "Bad: No such field",
            {"type": "about:blank"},
        ),
        (
            {"title": "Invalid", "errors": {"email": ["is taken"]}},
            None,
            "Invalid: email: is taken",
            {"errors": {"email": ["is taken"]}},
        ),
        ({"errors": JSON_API}, None, "/data/email: is taken", {"errors": JSON_API}),
        ({"errors": ["a", "b"]}, None, "a; b", {"errors": ["a", "b"]}),
        ({"errors": [{"field": "email", "message": "x"}]}, None, "email: x", None),
        ({"errors": [{"path": ["a", 0], "message": "x"}, 7]}, None, "a.0: x", None),
        ({"errors": {"email": 7, "phone": "bad"}}, None, "phone: bad", None),
        # No envelope at all.
        ("Slow down", None, "Slow down", {}),
        (["a", {"message": "b"}], None, "a; b", {"errors": ["a", {"message": "b"}]}),
        ({"errors": [f"e{n}" for n in range(9)]}, None, "e0; e1; e2; e3; e4", None),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict | list) else None,
)
def test_the_usual_bodies_of_gateways_and_frameworks_are_read(
    body: Any, code: str | None, message: str, details: dict[str, Any] | None
) -> None:
    """Anyone who answered, the error says in their words what is wrong, and keeps the rest."""
    error = failed(400, json.dumps(body).encode())
    assert (error.code, error.message) == (code, message)
    assert details is None or error.details == details
    assert message[:20] in str(error)
    assert "ada@" not in str(error)
    assert error.request_id in {None, "req-7"}
    marked = failed(400, b"\xef\xbb\xbf" + json.dumps(body).encode())
    assert marked.message == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"upstream request timeout", "upstream request timeout"),
        (b"<html><head><title>502 Bad&nbsp;Gateway</title></head><body>x", "502 Bad Gateway"),
        (b"<TITLE lang='en'>\n Oops </TITLE>", "Oops"),
        (b"<h1>Bad</h1>\n<hr><center>nginx</center>", "Bad nginx"),
        (b"<title", "Not Found"),
        (b"<title>" + b"<" * 10_000, "Not Found"),
        (b"a " * 10_000, ("a " * 100).strip()),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_pages_of_proxies_are_shortened(body: bytes, message: str) -> None:
    """Of HTML the title is kept, or the text without its tags; of a long text the start."""
    assert failed(404, body).message == message


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"code": "INTERVIEW_CLOSED", "message": "Closed."}, GatherAPIError, 400),
        ({"code": "NOT_FOUND", "message": "None."}, NotFoundError, 404),
        ({"code": "UNAUTHORIZED"}, AuthenticationError, 401),
        ({"code": "RATE_LIMIT_EXCEEDED", "details": {}}, RateLimitedError, 429),
        ({"code": "INTERNAL_ERROR"}, ServerError, 500),
        ({"code": "X", "status": 409}, ConflictError, 409),
        ({"code": "X", "status": 200}, BadRequestError, 400),
        ("It is closed.", BadRequestError, 400),
    ],
)
def test_an_error_envelope_under_200_is_that_error(
    error: Any, kind: type[GatherAPIError], status: int
) -> None:
    """Its class and status are what its code stands for; the message shows the 200."""
    body = json.dumps({"error": error, "meta": {"requestId": "r-9"}}).encode()
    failure = failed(200, body)
    assert isinstance(failure, kind)
    assert (failure.status, failure.request_id) == (status, "r-9")
    assert f"{CALL}: 200 " in str(failure)
    assert is_error_envelope(json.loads(body))


@pytest.mark.parametrize(
    "payload",
    [
        {"success": False, "message": "No.", "data": None},
        {"success": False, "error": "No.", "data": []},
        {"success": False, "data": {}},
        {"errors": [{"message": "No."}], "data": None},
        {"errors": {"email": ["No."]}},
        {"status": "error", "message": "No.", "data": None},
        {"status": "fail", "data": None},
        {"statusCode": 403, "message": "No."},
        {"status": 404, "title": "No."},
    ],
)
def test_what_frameworks_write_in_place_of_a_result_is_an_error(payload: Any) -> None:
    """Read as an empty list, it would prove that no one is there, and all are made again."""
    assert is_error_envelope(payload)
    assert "No" in str(failed(200, json.dumps(payload).encode())) or len(payload) == 2


@pytest.mark.parametrize(
    "payload",
    [
        {"data": {"id": "x"}, "error": {"code": "X"}},
        {"data": {"id": "x"}, "success": False, "errors": ["y"]},
        {"status": "failed", "jobId": "j"},
        {"status": 404, "id": "x"},
        {"data": [], "errors": []},
        {"data": [], "status": "ok", "statusCode": 200},
        {"data": [], "error": "a warning"},
        {"error": None},
        {"error": {}},
        {"error": 7},
        {},
        [],
        None,
    ],
)
def test_what_holds_data_or_no_error_is_no_error_envelope(payload: Any) -> None:
    """A null error beside the data, or a warning, is no failure."""
    assert not is_error_envelope(payload)


def test_an_unknown_status_has_a_phrase_too() -> None:
    """A number outside the standard doesn't fail."""
    assert failed(418).message == "I'm a Teapot"
    assert failed(450).message == "Unknown status"
    error = failed(799, is_write=False)
    assert str(error).endswith("Unknown status. The server failed: try again later.")


@pytest.mark.parametrize(
    ("status", "is_write", "maybe_processed"),
    [
        (500, True, True),
        (503, True, True),
        (408, True, True),
        (500, False, False),
        (408, False, False),
        (400, True, False),
        (429, True, False),
        (302, True, False),
    ],
)
def test_a_write_may_have_been_carried_out_if_the_server_failed(
    status: int, is_write: bool, maybe_processed: bool
) -> None:
    """Only 408 and 5xx leave it open, and only for a write; then trying again is no advice."""
    error = failed(status, is_write=is_write)
    assert error.maybe_processed is maybe_processed
    assert ("look before you send it again" in str(error)) is maybe_processed


PRIVATE = [
    "qapi_live_0123-abc",
    "ada.lovelace@example.com",
    "ada%40example.com",
    "+12025550123",
    "+1 (202) 555-0123",
    "+1\u2011202\u2011555\u20110123",
    "020 7946 0958",
    "030/12345678",
    "\u0662\u0660\u0662\u0665\u0665\u0665\u0660\u0661",
    "+1202\u200b5550123",
    "org-1:opaque-secret",
]


@pytest.mark.parametrize("private", PRIVATE)
@pytest.mark.parametrize(
    "body",
    [
        {"code": "X", "message": "Bad value {} here"},
        {"code": "X", "message": "{}"},
        {"code": "X", "message": "key='{}'"},
        {"code": "X", "message": "", "details": {"field": "{}", "reason": "{}"}},
        {"code": "{}", "message": "Bad"},
        {"code": "X", "message": "line\n{}\tend"},
        {"code": "X", "message": "y" * 290 + " {}"},
    ],
    ids=range(7),
)
def test_what_the_server_repeats_is_not_shown(body: dict[str, Any], private: str) -> None:
    """Keys, addresses and phone numbers are redacted, wherever the envelope has them."""
    raw = json.dumps(body).replace("{}", json.dumps(private)[1:-1])
    error = failed(400, b'{"error": ' + raw.encode() + b"}", secret="org-1:opaque-secret")
    for shown in (str(error), repr(error)):
        assert private not in shown
        assert private[-8:] not in shown
        assert private[:8] not in shown
        assert private.replace("\u200b", " ") not in shown


def test_no_attribute_keeps_a_key_that_the_server_repeats() -> None:
    """Body, details and headers are evidence, and may be logged: the key is struck out."""
    secret = "org-1:opaque-secret"
    body = envelope(code="X", message=secret, details={"expectedFormat": secret})
    error = failed(401, body, {"X-Echo": f"key {secret}"}, secret=secret)
    assert secret not in repr(vars(error))
    assert error.headers["x-echo"] == "key [redacted]"
    assert error.details == {"expectedFormat": "[redacted]"}


def test_ordinary_words_and_short_numbers_are_shown() -> None:
    """Redaction leaves what explains the error, and a secret too short to be one."""
    message = "externalId must be at most 64 characters, page is 12 of 100"
    error = failed(400, envelope(code="VALIDATION_ERROR", message=message), secret="at")
    assert message in str(error)


def test_a_message_is_one_line_of_limited_length_that_can_be_written() -> None:
    """Control characters, direction marks and lone surrogates can't forge or break a log."""
    wild = "a\r\nb\x1b[31mc\u202ed\x00e\u2028f\ud800" + "x" * 10_000
    error = failed(500, envelope(code=wild, message=wild))
    assert str(error).isprintable()
    assert str(error).encode()
    assert len(str(error)) < 800
    assert error.message == wild


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "1 " * 100_000, "@" * 200_000, "1" + "." * 200_000]
)
def test_a_huge_message_takes_no_quadratic_time(text: str) -> None:
    """A server can't stall the event loop with one long word."""
    body = envelope(code="X", message=text)
    began = time.process_time()
    failed(500, body)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("headers", "details", "wait"),
    [
        ({}, {}, None),
        (quota(NOW + 30), {}, 30.0),
        (quota(int(NOW * 1000) + 30_000), {}, 30.0),
        (quota(NOW - 30), {}, 0.0),
        # The longest that can be meant decides.
        (quota(NOW + 30, **{"retry-after": "5"}), {"resetAt": iso(50)}, 50.0),
        (quota(NOW + 30, **{"retry-after": "90"}), {"resetAt": iso(50)}, 90.0),
        (quota("soon", **{"retry-after": "5"}), {"resetAt": iso(50)}, 50.0),
        (quota(NOW + 9e6, **{"retry-after": "5"}), {"resetAt": iso(-50)}, 5.0),
        (quota(NOW + 9e6, **{"retry-after": "8000"}), {}, 8000.0),
        ({"x-ratelimit-reset": str(NOW + 30)}, {"resetAt": iso(20)}, 30.0),
        # A small number is no date in 1970, but seconds from now.
        (quota(3), {}, 3.0),
        (quota("3.5", **{"retry-after": "2"}), {}, 3.5),
        ({"retry-after": "5"}, {"resetAt": iso(50)}, 50.0),
        ({"retry-after": "5"}, {"resetAt": iso(-50)}, 5.0),
        ({"retry-after": "5"}, {"resetAt": "soon"}, 5.0),
        ({"retry-after": "5"}, {"resetAt": None}, 5.0),
        ({"retry-after": "5"}, {"resetAt": 12}, 5.0),
        ({"retry-after": " 7 "}, {}, 7.0),
        ({"retry-after": "0"}, {}, 0.0),
        ({"retry-after": "1.5"}, {}, 1.5),
        ({"retry-after-ms": "1500"}, {}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, {}, 2.0),
        ({"retry-after": "-5"}, {}, None),
        ({"retry-after": "\u00b2"}, {}, None),
        ({"retry-after": "9" * 400}, {}, None),
        ({"retry-after": ""}, {}, None),
        ({"retry-after": "soon"}, {}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:09 GMT"}, {}, 9.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, {}, 0.0),
        ({"retry-after": "2026-03-01T12:00:09Z"}, {}, 9.0),
        ({"retry-after": str(int(NOW) + 9)}, {}, 9.0),
        ({"retry-after": "7s"}, {}, 7.0),
        ({"retry-after": '"+7 seconds"'}, {}, 7.0),
        ({"retry-after": "1, 9"}, {}, 9.0),
        (quota("2026-03-01T12:00:09Z"), {}, 9.0),
        (quota("Sun, 01 Mar 2026 12:00:09 GMT"), {}, 9.0),
        ({"ratelimit-reset": "9"}, {}, 9.0),
        ({"ratelimit": '"default";r=0;t=9'}, {}, 9.0),
        ({"x-ratelimit-reset-after": "8.5"}, {}, 8.5),
        ({}, {"resetAt": NOW + 9}, 9.0),
        ({}, {"resetAt": 10**400}, None),
        ({}, {"retryAfter": 9}, 9.0),
        ({}, {"retry_after": 8.5}, 8.5),
        ({}, {"retry_after": True}, None),
    ],
)
def test_a_429_says_when_to_come_back(
    headers: dict[str, str], details: dict[str, Any], wait: float | None
) -> None:
    """``X-RateLimit-Reset``, ``details.resetAt`` or ``Retry-After``: the longest within reason."""
    assert seconds_until_reset(headers, details, now=NOW) == wait
    error = failed(429, envelope(code="RATE_LIMIT_EXCEEDED", details=details), headers)
    assert isinstance(error, RateLimitedError)
    expected = None if wait is None else datetime.fromtimestamp(NOW + wait, UTC)
    assert error.reset_at == expected


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "6"}, 6.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:09 GMT"}, 9.0),
        # The quota's reset comes with each response, and isn't why the server failed.
        (quota(NOW + 30), None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_a_5xx_may_say_when_to_come_back(
    status: int, headers: dict[str, str], wait: float | None
) -> None:
    """``Retry-After`` counts on any failure of the server."""
    assert failed(status, b"", headers).retry_after == wait


def test_of_a_header_that_comes_twice_the_longer_wait_counts() -> None:
    """A gateway adds its own Retry-After to the server's, in either order."""
    for values in (["1", "9"], ["9", "1"]):
        headers = CIMultiDictProxy(CIMultiDict([("Retry-After", each) for each in values]))
        answer = Response(429, headers, b"")
        assert api_error(answer, CALL, is_write=False, now=NOW).retry_after == 9.0


def test_a_reset_beyond_the_calendar_is_its_end() -> None:
    """A senseless reset is a date, not a crash."""
    for headers, details in (
        ({"retry-after": "99999999999"}, {}),
        (quota("99999999999"), {}),
        ({}, {"resetAt": "9999-12-31T23:59:59Z"}),
    ):
        error = failed(429, envelope(details=details), headers)
        assert isinstance(error, RateLimitedError)
        assert error.reset_at is not None
        assert error.reset_at.year > 5000


@pytest.mark.parametrize(
    ("date", "time_"),
    [
        ("Sun, 01 Mar 2026 12:00:00 GMT", NOW),
        ("Sun, 01 Mar 2026 12:00:00 +0000", NOW),
        ("Sun, 01 Mar 2026 12:00:00 -0000", NOW),
        ("Sun, 01 Mar 2026 14:00:00 +0200", NOW),
        ("Sunday, 01-Mar-26 12:00:00 GMT", NOW),
        ("Sun, 31 Feb 2026 12:00:00 GMT", None),
        ("now", None),
        ("", None),
        ("1767225600", None),
    ],
)
def test_the_servers_clock_is_read_from_its_date(
    date: str, time_: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every form of HTTP date is read as what it is, whatever this machine's zone."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert server_time({"date": date}) == time_
    finally:
        monkeypatch.undo()
        time.tzset()


def test_without_a_date_the_servers_clock_is_unknown() -> None:
    """No header, no guess."""
    assert server_time({}) is None


def test_an_error_with_aiohttps_headers_can_be_pickled() -> None:
    """Headers become a plain mapping with names in lower case, so the error can travel."""
    headers = CIMultiDictProxy(CIMultiDict({"Retry-After": "5", "X-Request": "r"}))
    error = api_error(Response(429, headers, b""), CALL, is_write=False, now=NOW)
    again = pickle.loads(pickle.dumps(error))
    assert again.headers == {"retry-after": "5", "x-request": "r"}
    assert vars(again) == vars(error)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "meta", "code", "message", "details", "field", "resetAt", "requestId"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)
numbers = st.floats(allow_nan=True).map(str) | st.integers().map(str)
dates = st.datetimes(timezones=st.just(UTC)).map(format_datetime)
header_values = (
    st.text() | numbers | dates | st.text(alphabet="0123456789 :,-+GMTJanSun()", max_size=40)
)
header_names = st.sampled_from(
    [
        "Date",
        "Retry-After",
        "retry-after-ms",
        "RateLimit",
        "RateLimit-Reset",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    ]
)


@given(
    st.integers(min_value=300, max_value=999),
    st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(header_names | st.text(), header_values),
    st.booleans(),
)
@example(429, b'{"error": {"details": {"resetAt": "9999-12-31T23:59:59Z"}}}', {}, False)
@example(429, b'{"error": {"details": {"resetAt": "0001-01-01T00:00:00Z"}}}', {}, False)
@example(429, b"", {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, False)
@example(429, b"", {"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359"}, False)
@example(429, b"", {"retry-after": "Mon, 01 Jan 2024 00:00:00 +9999999999"}, False)
@example(429, b"", {"retry-after": "( )"}, False)
def test_any_answer_gives_a_gather_api_error(
    status: int, body: bytes, headers: dict[str, str], is_write: bool
) -> None:
    """No status, body or header makes building the error fail, and it can be published."""
    mapping = CIMultiDictProxy(CIMultiDict(headers))
    now = server_time(mapping)
    answer = Response(status, mapping, body)
    error = api_error(answer, CALL, is_write=is_write, now=NOW if now is None else now)
    assert isinstance(error, GatherAPIError)
    assert error.status == status
    assert str(error).encode()
    assert vars(pickle.loads(pickle.dumps(error))).keys() == vars(error).keys()
    wait = seconds_until_reset(mapping, error.details, now=NOW)
    assert wait is None or wait >= 0


def test_a_pickle_holds_no_address_or_number_that_the_server_repeats() -> None:
    """Task queues store pickles for days: the server's words are in them as `str` shows them."""
    said = "No ann@example.com, +12025550123."
    details = {"field": "email", "reason": said, "sent": [{"ann@example.com": [said]}], "n": 7}
    deep: Any = "ann@example.com"
    for _ in range(50):
        deep = [deep]
    error = failed(400, envelope(code="X", message=said, details={**details, "deep": deep}))
    assert (error.message, error.details["reason"]) == (said, said)
    stored = pickle.dumps(error, protocol=0)
    assert b"ann@" not in stored
    assert b"2025550123" not in stored
    again = pickle.loads(stored)
    assert (again.details["field"], again.details["n"], again.code) == ("email", 7, "X")
    assert "[redacted]" in again.message
    error.pickles_body = True
    assert pickle.loads(pickle.dumps(error)).message == said
