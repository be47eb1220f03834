"""From a JSON value to a model and back: wire names, strict scalars, unknown fields kept."""

import copy
import pickle
import weakref
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import UnionType
from typing import Any, get_args, get_origin

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gather_async.models import (
    BulkUpdateResult,
    Candidate,
    CandidateInterview,
    CandidateInterviewStatus,
    DeliveryType,
    EvaluationType,
    Interview,
    InterviewQuestion,
    InterviewResults,
    InterviewStatus,
    InterviewType,
    Message,
    MessageGroup,
    Narrator,
    Question,
    SummaryStatus,
    Team,
    User,
    Voice,
)
from gather_async.models.enums import OpenEnum
from gather_async.models.fields import WIRE_NAME
from gather_async.protocol.codec import MismatchError, decode, decode_all, wire_names

READ: list[type[Any]] = [
    BulkUpdateResult,
    Candidate,
    CandidateInterview,
    Interview,
    InterviewQuestion,
    InterviewResults,
    Message,
    MessageGroup,
    Narrator,
    Question,
    Team,
    User,
    Voice,
]
SCALARS: list[type[Any]] = [str, bool, int, datetime]
NOT_ON_THE_WIRE = {"extra", "status_code"}

WORDS = [InterviewType, CandidateInterviewStatus, DeliveryType, SummaryStatus, EvaluationType]

# What servers put where a date, a number, a flag or a word belongs.
ODD: list[Any] = ["", " ", "null", "N/A", "0000-00-00", "1", "true", 0, -1, 1.5, float("nan")]
ODD += [True, [], {}, [None], [{}], {"id": 1}, "2026-02-30", "24:00", 10**30]

_wires: dict[type[Any], st.SearchStrategy[dict[str, Any]]] = {}

# These laws are checked once for each model, so each time needs fewer examples.
FEWER = settings(max_examples=settings().max_examples // 3)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
instants = st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def wire_fields(model: type[Any]) -> Iterator[tuple[str, str, Any]]:
    """Give each field of a model that the wire has: its own name, its wire name, its type."""
    for field in attrs.fields(attrs.resolve_types(model)):
        if field.name not in NOT_ON_THE_WIRE:
            yield field.name, field.metadata.get(WIRE_NAME, field.name), field.type


def value_of(kind: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one line a kind
    """Return JSON values that fit a field's type."""
    arguments = get_args(kind)
    if isinstance(kind, UnionType):
        return st.one_of(*(value_of(each) for each in arguments))
    if get_origin(kind) is tuple:
        return st.none() | st.lists(value_of(arguments[0]), max_size=3)
    if kind in READ:
        return wire_of(kind)
    if kind is Any:
        return json_values
    if kind == Mapping[str, Any]:
        return st.dictionaries(st.text(), json_values, max_size=3)
    if isinstance(kind, type) and issubclass(kind, OpenEnum):
        return st.text() | st.sampled_from([member.value for member in kind])
    fitting = {
        type(None): st.none(),
        str: st.text(),
        bool: st.booleans(),
        int: st.integers(),
        datetime: instants.map(datetime.isoformat),
    }
    return fitting[kind]


def wire_of(model: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects as a server could send them: any field but the needed ones may be absent."""
    if model not in _wires:  # to make one takes longer than to draw from it
        _wires[model] = _new_wire_of(model)
    return _wires[model]


def _new_wire_of(model: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for name, wire_name, kind in wire_fields(model):
        is_needed = attrs.fields_dict(model)[name].default is attrs.NOTHING
        (required if is_needed else optional)[wire_name] = value_of(kind)
    unknown = st.dictionaries(st.text(max_size=5), json_values, max_size=2)
    known = st.fixed_dictionaries(required, optional=optional)
    return st.builds(lambda more, fields: {**more, **fields}, unknown, known)


def unread(value: Any) -> Any:
    """Write a decoded value as the wire would, field by field."""
    if attrs.has(type(value)):
        named = {wire: unread(getattr(value, name)) for name, wire, _ in wire_fields(type(value))}
        return {**named, **value.extra}
    if isinstance(value, tuple):
        return [unread(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, OpenEnum) else value


def as_sent(model: type[Any], wire: Mapping[str, Any]) -> Any:
    """Return what was sent, with every absent field as the model shows it."""
    sent = dict(wire)
    for name, wire_name, kind in wire_fields(model):
        default: Any = [] if get_origin(kind) is tuple else None
        value = sent.get(wire_name)
        sent[wire_name] = default if value is None else value
        if default == [] and get_args(kind)[0] in READ:
            sent[wire_name] = [as_sent(get_args(kind)[0], each) for each in sent[wire_name]]
        assert hasattr(attrs.fields(model), name)
    return sent


@pytest.mark.parametrize("model", READ)
@FEWER
@given(st.data())
def test_every_field_that_is_sent_can_be_read_back(model: type[Any], data: st.DataObject) -> None:
    """Known fields, unknown fields, unknown words and dates all survive decoding."""
    wire = data.draw(wire_of(model))
    decoded = decode(wire, model)
    assert repr(unread(decoded)) == repr(as_sent_in_order(model, wire))
    for name, _, kind in wire_fields(model):
        for vocabulary in get_args(kind):
            if vocabulary in WORDS:
                assert isinstance(getattr(decoded, name), vocabulary | None)


def as_sent_in_order(model: type[Any], wire: Mapping[str, Any]) -> Any:
    """Order fields as `unread` does: named ones first. NaN differs from itself, so reprs do."""
    sent = as_sent(model, wire)
    ordered: dict[str, Any] = {}
    for _, wire_name, kind in wire_fields(model):
        value = sent.pop(wire_name)
        if get_origin(kind) is tuple and get_args(kind)[0] in READ:
            value = [as_sent_in_order(get_args(kind)[0], each) for each in value]
        ordered[wire_name] = value
    return {**ordered, **sent}


@pytest.mark.parametrize("model", [*READ, *SCALARS])
@FEWER
@given(json_values)
def test_any_json_is_a_model_or_a_mismatch(model: type[Any], value: Any) -> None:
    """No value makes decoding fail in another way."""
    try:
        decoded = decode(value, model)
    except MismatchError as failure:
        path, problem = failure.path, str(failure)
    else:
        assert isinstance(decoded, model)
        return
    assert path == "" or path[0] in ".["
    assert problem


@pytest.mark.parametrize("model", READ)
@given(st.data())
def test_no_value_of_an_optional_field_costs_another(model: type[Any], data: st.DataObject) -> None:
    """Any JSON anywhere but in an id leaves the object readable; what is odd is in ``extra``."""
    wire = data.draw(wire_of(model))
    whole = decode(wire, model)
    optional = [each for each in wire_fields(model) if each[0] != "id"]
    name, wire_name, kind = data.draw(st.sampled_from(optional))
    odd = data.draw(json_values | st.sampled_from(ODD))
    decoded = decode({**wire, wire_name: odd}, model)
    for other in attrs.fields(model):
        if other.name not in {name, *NOT_ON_THE_WIRE}:
            assert repr(getattr(decoded, other.name)) == repr(getattr(whole, other.name))
    read = getattr(decoded, name)
    if wire_name in decoded.extra:
        assert decoded.extra[wire_name] is odd
        assert read is None or len(read) < (len(odd) if isinstance(odd, list) else 1)
    elif odd is not None and get_origin(kind) is not tuple:
        assert read is not None
    # The field itself may have been odd before, by a name that was drawn for an unknown one.
    before, after = (
        {key: value for key, value in each.extra.items() if key != wire_name}
        for each in (whole, decoded)
    )
    assert repr(after) == repr(before)


@pytest.mark.parametrize("model", READ)
def test_a_model_that_was_read_is_as_one_that_was_made(model: type[Any]) -> None:
    """It is of the class itself: equal, frozen, hashable, weakly referable, pickled, copied."""
    wire = {"id": "x"} if "id" in attrs.fields_dict(model) else {}
    read: Any = decode(wire, model)
    made = model(**wire)
    assert type(read) is model
    assert read == made
    assert repr(read) == repr(made)
    assert hash(read) == hash(made)
    assert id(weakref.ref(read)()) == id(read)
    for again in (pickle.loads(pickle.dumps(read)), copy.deepcopy(read), attrs.evolve(read)):
        assert again == read
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        read.extra = {}
    assert decode(wire, model).extra is not read.extra


@pytest.mark.parametrize("model", READ)
def test_what_is_no_object_is_no_model(model: type[Any]) -> None:
    """The path of a value that isn't an object is the value's own."""
    for value, kind in (
        (None, "null"),
        ([], "an array"),
        ("x", "text"),
        (1, "a number"),
        (1.0, "a number"),
        (True, "a boolean"),
        (b"x", "something else"),
    ):
        with pytest.raises(MismatchError, match=rf"^an object was expected, not {kind}$") as caught:
            decode(value, model)
        assert caught.value.path == ""


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (str, ["", "x", "null", "\ud800"], [None, 1, True, 1.0, b"x", [], {}]),
        (bool, [True, False], [None, 0, 1, "true", "false", "", 1.0]),
        (int, [0, -1, 10**30], [None, True, False, 1.0, "1", "", 1e300]),
        (datetime, ["2026-01-01"], [None, 0, 1767225600, True, 1.5, "", "now", "2026-13-01"]),
        (InterviewStatus, ["active", "new", 0, 3, 99, -1], [None, True, 1.0, [], {}]),
        *(
            (words, [*(word.value for word in words), "new", ""], [None, 0, True, 1.0, []])
            for words in WORDS
        ),
    ],
)
def test_scalars_are_never_converted(kind: type[Any], good: list[Any], bad: list[Any]) -> None:
    """Null is not "None", "false" not True, 1 neither True nor 1.0."""
    for value in good:
        assert isinstance(decode(value, kind), kind)
    for value in bad:
        with pytest.raises(MismatchError):
            decode(value, kind)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01T10:00:00.5Z", datetime(2026, 3, 1, 10, 0, 0, 500_000, UTC)),
        ("2026-03-01T10:00:00.123Z", datetime(2026, 3, 1, 10, 0, 0, 123_000, UTC)),
        ("2026-03-01T10:00:00.123456Z", datetime(2026, 3, 1, 10, 0, 0, 123_456, UTC)),
        # Nanoseconds are cut to what a datetime holds.
        ("2026-03-01T10:00:00.123456789Z", datetime(2026, 3, 1, 10, 0, 0, 123_456, UTC)),
        ("2026-03-01T10:00:00+02:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("2026-03-01T10:00:00.25-05:30", datetime(2026, 3, 1, 15, 30, 0, 250_000, UTC)),
        ("2026-03-01T10:00:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01 10:00:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_dates_become_aware_utc(sent: str, expected: datetime) -> None:
    """Every form of ISO 8601 that servers use is read, and without an offset it is UTC."""
    decoded = decode(sent, datetime)
    assert decoded == expected
    assert decoded.tzinfo is UTC


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),  # noqa: DTZ001
    st.integers(min_value=-1439, max_value=1439),
)
def test_no_date_loses_its_moment(local: datetime, minutes: int) -> None:
    """Any offset is the same moment in UTC, to the microsecond."""
    sent = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    decoded = decode(sent.isoformat(), datetime)
    assert decoded == sent
    assert decoded.utcoffset() == timedelta(0)


@pytest.mark.parametrize("sent", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_date_beyond_the_calendar_is_a_mismatch(sent: str) -> None:
    """A moment that UTC can't express isn't invented."""
    with pytest.raises(MismatchError, match="ISO 8601"):
        decode(sent, datetime)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ("active", InterviewStatus.ACTIVE, None),
        ("draft", InterviewStatus("draft"), None),
        (0, InterviewStatus.ACTIVE, 0),
        (1, InterviewStatus.PAUSED, 1),
        (2, InterviewStatus.CLOSED, 2),
        (3, InterviewStatus.ARCHIVED, 3),
        (4, InterviewStatus("4"), 4),
        (-1, InterviewStatus("-1"), -1),
        (None, None, None),
    ],
)
def test_an_interviews_status_is_read_in_both_editions(
    sent: Any, status: InterviewStatus | None, code: int | None
) -> None:
    """Edition A's word and edition B's number mean the same; the number is kept."""
    interview = decode({"id": "i", "status": sent}, Interview)
    assert interview.status == status
    assert interview.status_code == code
    assert interview.extra == {}


@pytest.mark.parametrize(
    ("wire", "model", "odd"),
    [
        ({"id": "q", "questionScript": 5}, Question, "questionScript"),
        ({"id": "q", "createdAt": "soon"}, Question, "createdAt"),
        ({"id": "q", "createdAt": ""}, Question, "createdAt"),
        ({"id": "q", "createdAt": 1767225600}, Question, "createdAt"),
        ({"id": "q", "createdAt": "9999-12-31T23:59:59-14:00"}, Question, "createdAt"),
        ({"id": "i", "questions": {}}, Interview, "questions"),
        ({"id": "i", "questions": "none"}, Interview, "questions"),
        ({"id": "i", "status": True}, Interview, "status"),
        ({"id": "i", "interviewType": ["x"]}, Interview, "interviewType"),
        ({"success": "yes", "updatedCount": 1}, BulkUpdateResult, "success"),
        ({"success": True, "updatedCount": "1"}, BulkUpdateResult, "updatedCount"),
        ({"success": True, "errors": "two"}, BulkUpdateResult, "errors"),
        ({"scoreCard": []}, InterviewResults, "scoreCard"),
        ({"id": "c", "smsOptIn": "false"}, Candidate, "smsOptIn"),
        ({"id": "c", "smsOptIn": 1}, Candidate, "smsOptIn"),
        ({"id": "ci", "status": 3}, CandidateInterview, "status"),
        ({"id": "ci", "status": {}}, CandidateInterview, "status"),
    ],
)
def test_an_odd_value_is_kept_beside_the_others(
    wire: dict[str, Any], model: type[Any], odd: str
) -> None:
    """The field is None, or empty where it is a list, and its raw value is in ``extra``."""
    decoded = decode(wire, model)
    assert decoded.extra == {odd: wire[odd]}
    (name,) = (name for name, wire_name, _ in wire_fields(model) if wire_name == odd)
    assert getattr(decoded, name) in {None, ()}


def test_an_odd_item_does_not_cost_the_others_of_its_list() -> None:
    """Those that can be read are there, in order; the whole list as sent is in ``extra``."""
    sent = [{"id": "a"}, {}, {"id": "b", "ordinal": True}, 7, None]
    interview = decode({"id": "i", "questions": sent}, Interview)
    first, second = interview.questions
    assert first == InterviewQuestion(id="a")
    assert second == InterviewQuestion(id="b", extra={"ordinal": True})
    assert interview.extra == {"questions": sent}


def test_a_bulk_update_whose_outcome_is_odd_is_not_complete() -> None:
    """What can't be read is never taken for success."""
    good = {"success": True, "updatedCount": 1, "errors": []}
    assert decode(good, BulkUpdateResult).is_complete
    for odd in ({"success": "true"}, {"success": None}, {"errors": {"a": 1}}):
        assert decode({**good, **odd}, BulkUpdateResult).is_complete is False


@pytest.mark.parametrize(
    ("value", "model", "path"),
    [
        ({}, Question, ".id"),
        ({"id": None}, Question, ".id"),
        ({"id": 7}, Candidate, ".id"),
        ({"id": ["x"], "createdAt": "soon"}, Candidate, ".id"),
        ("x", Candidate, ""),
    ],
)
def test_a_mismatch_names_its_wire_path(value: Any, model: type[Any], path: str) -> None:
    """The path says whether the object is none, or has no id."""
    with pytest.raises(MismatchError) as caught:
        decode(value, model)
    assert caught.value.path == path


def test_of_many_the_first_that_is_none_is_named() -> None:
    """The path begins with its index."""
    assert decode_all([], Question) == ()
    assert decode_all([{"id": "a"}], Question) == (Question(id="a"),)
    with pytest.raises(MismatchError, match="text was expected, not null") as caught:
        decode_all([{"id": "a"}, {"id": None}, 7], Question)
    assert caught.value.path == "[1].id"


def test_a_missing_field_is_reported_from_a_wrong_one() -> None:
    """The message says which of the two it is."""
    with pytest.raises(MismatchError, match=r"^it is missing$"):
        decode({}, Question)
    with pytest.raises(MismatchError, match=r"^text was expected, not null$"):
        decode({"id": None}, Question)


@pytest.mark.parametrize(
    ("wire", "extra"),
    [
        ({"id": "i"}, {}),
        ({"id": "i", "new": None}, {"new": None}),
        ({"id": "i", "extra": 1}, {"extra": 1}),
        # Our names aren't the wire's.
        (
            {"id": "i", "display_name": "x", "status_code": 9},
            {"display_name": "x", "status_code": 9},
        ),
        ({"id": "i", "status": 2, "status_code": 9}, {"status_code": 9}),
    ],
)
def test_fields_that_the_model_does_not_name_are_kept(
    wire: dict[str, Any], extra: dict[str, Any]
) -> None:
    """``extra`` has what is left over, as sent, and nothing else."""
    interview = decode(wire, Interview)
    assert interview.extra == extra
    assert interview.display_name is None
    assert interview.status_code == wire.get("status")


@pytest.mark.parametrize("model", READ)
def test_no_wire_name_is_shared(model: type[Any]) -> None:
    """Each field of a model has a wire name of its own."""
    fields = list(wire_fields(model))
    assert wire_names(model) == {wire_name for _, wire_name, _ in fields}
    assert len(wire_names(model)) == len(fields)
