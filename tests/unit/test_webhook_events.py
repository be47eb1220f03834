"""Events: typed where documented, tolerant where not, the same however they are formatted."""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.webhooks import (
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
    InterviewCreated,
    InterviewUpdated,
    QuestionAudioGenerated,
    UnknownEvent,
    WebhookEvent,
    sample,
    sample_body,
    verify,
)
from gather_async.webhooks.events import decode_event


def event_of(name: str, data: Any, **more: Any) -> Any:
    """Return the event of a body with this data."""
    return decode_event(json.dumps({"event": name, "data": data, **more}))


@pytest.mark.parametrize(
    "cls",
    [
        QuestionAudioGenerated,
        CandidateInterviewCompleted,
        CandidateInterviewStatusChanged,
        InterviewCreated,
        InterviewUpdated,
    ],
)
def test_documented_events_are_typed(cls: type[WebhookEvent]) -> None:
    """Each documented name gives its class, through signing and verifying a sample."""
    assert cls.NAME is not None
    delivery = sample(cls.NAME, secret="s")
    event = verify(delivery.body, delivery.headers["x-qualifi-signature"], secret="s")
    assert type(event) is cls
    assert event.event == cls.NAME
    assert event.timestamp is not None
    assert event.timestamp.tzinfo is UTC
    assert not event.synthetic
    assert len(event.ids) >= 1


def test_documented_payload() -> None:
    """The one documented payload is read in full."""
    event = event_of(
        "candidate_interview.completed",
        {
            "candidateInterviewId": "ci",
            "candidateId": "c",
            "interviewId": "i",
            "status": "new_response",
            "takenAt": "2026-01-01T10:00:00.000Z",
        },
        timestamp="2026-01-01T10:00:05Z",
    )
    assert isinstance(event, CandidateInterviewCompleted)
    assert (event.candidate_interview_id, event.candidate_id, event.interview_id) == (
        "ci",
        "c",
        "i",
    )
    assert event.status == "new_response"
    assert event.taken_at == datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert event.timestamp == datetime(2026, 1, 1, 10, 0, 5, tzinfo=UTC)
    assert event.ids == {"ci", "c", "i"}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"questionId": "q"}, "q"),
        ({"question_id": "q"}, "q"),
        ({"question": {"id": "q"}}, "q"),
        ({"id": "q"}, "q"),
        ({"id": 7}, "7"),
        ({"id": "other", "questionId": "q"}, "q"),
        ({}, None),
        ({"questionId": None, "question": "q", "id": True}, None),
    ],
)
def test_plausible_places(data: Any, found: str | None) -> None:
    """An id is found wherever it could be, and None is no error."""
    event = event_of("question.audio_generated", data)
    assert event.question_id == found


def test_nested_candidate_interview() -> None:
    """A status change may carry the object itself."""
    data = {
        "candidateInterview": {"id": "ci", "candidateId": "c", "interviewId": "i", "status": "odd"},
        "previousStatus": "invite_sent",
    }
    event = event_of("candidate_interview.status_changed", data)
    assert (event.candidate_interview_id, event.candidate_id, event.interview_id) == (
        "ci",
        "c",
        "i",
    )
    assert event.status == "odd"
    assert event.previous_status == "invite_sent"
    assert event_of("interview.created", {"interview": {"id": "i"}}).interview_id == "i"


@pytest.mark.parametrize(
    "timestamp", ["2026-01-01T00:00:00Z", 1767225600, 1767225600.0, 1767225600000, "1767225600"]
)
def test_timestamp_forms(timestamp: Any) -> None:
    """The body's timestamp is read in every form."""
    event = event_of("x", {}, timestamp=timestamp)
    assert event.timestamp == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("timestamp", [None, "soon", True, [], 1e300, -5, "999999999999999999"])
def test_unreadable_timestamp_is_no_error(timestamp: Any) -> None:
    """A timestamp in an unforeseen form doesn't cost the event."""
    assert event_of("x", {}, timestamp=timestamp).timestamp is None


@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False), max_size=5)
)
def test_dedupe_key_ignores_formatting(data: dict[str, Any]) -> None:
    """Spaces, escapes, order of keys and forms of numbers don't change the key."""
    try:
        plain = decode_event(
            json.dumps({"event": "x", "timestamp": 4, "data": data}, allow_nan=False)
        )
    except ValueError:
        return
    turned = dict(reversed(data.items()))
    text = json.dumps(
        {"data": turned, "timestamp": 4.0, "event": "x"}, indent=1, ensure_ascii=False
    )
    assert decode_event(text).dedupe_key == plain.dedupe_key


def test_dedupe_key_ignores_how_an_instant_is_written() -> None:
    """One instant is one, whether written in seconds, milliseconds or any form of ISO 8601."""
    forms = (1_767_225_600, 1_767_225_600_000, "1767225600", "2026-01-01T00:00:00Z")
    more = ("2026-01-01T00:00:00.000Z", "2026-01-01T01:00:00+01:00")
    assert len({event_of("x", {}, timestamp=at).dedupe_key for at in forms + more}) == 1
    unread = {event_of("x", {}, timestamp=at).dedupe_key for at in ("soon", "later", None)}
    assert len(unread) == 3


def test_dedupe_key_shows_events_apart() -> None:
    """Another name, time, id or datum is another event; an id counts beside them."""
    keys = {
        event_of(name, data, timestamp=at).dedupe_key
        for name in ("x", "y")
        for data in ({"a": 1}, {"a": "1"}, {"a": True}, {"a": None}, {})
        for at in (1, 2)
    }
    assert len(keys) == 20
    with_id = {event_of("x", {"a": n}, id=i).dedupe_key for n in (1, 2) for i in ("e", "\ud800")}
    assert len(with_id) == 4
    tenants = {decode_event('{"event":"x"}', tenant=t).dedupe_key for t in (None, "a", "b")}
    assert len(tenants) == 3
    assert all(key.isascii() and len(key) <= 210 for key in keys)


def test_unknown_event_keeps_everything() -> None:
    """Fields beside the known three are kept."""
    event = event_of("new.thing", {"a": 1}, tenant="t")
    assert isinstance(event, UnknownEvent)
    assert event.extra == {"tenant": "t"}


def test_repr_shows_no_data() -> None:
    """What is printed of an event is safe to publish."""
    event = event_of("candidate_interview.completed", {"email": "ann@example.com"}, phone="+1555")
    assert "ann" not in repr(event)
    assert "+1555" not in repr(event)


def test_a_sample_is_what_the_vendor_would_send_at_that_time() -> None:
    """Body and header carry the instant; the signature is the documented one."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    delivery = sample("interview.created", secret="s", data={"interviewId": "é"}, at=at)
    stamp = str(int(at.timestamp()))
    digest = hmac.new(b"s", stamp.encode() + b"." + delivery.body, hashlib.sha256).hexdigest()
    assert delivery.headers["x-qualifi-signature"] == f"t={stamp},v1={digest}"
    assert json.loads(delivery.body) == {
        "event": "interview.created",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "data": {"interviewId": "é"},
    }


def test_sample_takes_any_event() -> None:
    """A sample can be of an unknown event, with data of one's own, tampered with or old."""
    assert decode_event(sample_body("x", data={"a": 1}).decode()).data == {"a": 1}
    assert sample("x", secret="s", tamper=True).body.startswith(b'{"tampered":true,')
