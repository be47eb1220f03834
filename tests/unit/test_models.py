"""The models: frozen, picklable, open to new words, and silent about people."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from traceback import TracebackException
from typing import Any

import attrs
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async import models
from gather_async.errors import InvalidEmailError, InvalidPhoneNumberError, InvalidRequestError
from gather_async.models import (
    AudioState,
    BulkUpdateResult,
    Candidate,
    CandidateInterview,
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
    NewCandidate,
    NewTeam,
    NewUser,
    Question,
    RateLimitStatus,
    SummaryStatus,
    Team,
    User,
    Voice,
)
from gather_async.models.enums import CandidateInterviewStatus, OpenEnum
from gather_async.models.fields import Model
from gather_async.models.question import FAILED_WORDS, READY_WORDS, audio_state_of
from gather_async.models.rate_limit import QueueStatus, WindowStatus
from gather_async.protocol.codec import decode
from gather_async.unset import UNSET

THEN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
EXTRA = {"new": {"deep": [1, None]}}
PEOPLE: dict[str, Any] = {
    "first_name": "Ada",
    "last_name": "Lovelace",
    "email": "ada@example.com",
    "phone": "+12025550123",
}
PRIVATE = ("Ada", "Lovelace", "ada@example.com", "2025550123", "cv.pdf", "linkedin", "token-1")
ENUMS = [
    InterviewType,
    InterviewStatus,
    CandidateInterviewStatus,
    DeliveryType,
    SummaryStatus,
    EvaluationType,
]
WORDS = st.text().filter(lambda word: all(word not in list(each) for each in ENUMS))


def one_of_each() -> Iterator[Any]:
    """Give a full object of every model."""
    yield Candidate(
        id="c1",
        **PEOPLE,
        resume_url="https://x/cv.pdf",
        linked_in_url="https://linkedin.example/in/x",
        created_at=THEN,
        extra={"email2": "ada@example.com"},
    )
    yield NewCandidate(**PEOPLE, external_id="x1", sms_opt_in=True)
    yield User(id="u1", **PEOPLE, is_api_user=True, extra=EXTRA)
    yield NewUser(**PEOPLE, team_ids=("t1",))
    yield CandidateInterview(
        id="ci1",
        status=CandidateInterviewStatus("odd"),
        invite_token="token-1",
        expiry=THEN,
        extra=EXTRA,
    )
    yield InterviewResults(
        summary_status=SummaryStatus.COMPLETE,
        summary={"text": "Ada"},
        score_card={"evaluationType": "manual", "by": "Ada"},
        extra={"transcript": "Ada Lovelace"},
    )
    asked = InterviewQuestion(id="q1", title="Why?", ordinal=1, extra=EXTRA)
    yield asked
    yield Interview(id="i1", status=InterviewStatus.PAUSED, status_code=1, questions=(asked,))
    yield BulkUpdateResult(success=False, updated_count=1, errors=({"id": "i1"},), extra=EXTRA)
    yield Question(id="q1", transcription_status="processing", extra=EXTRA)
    yield Voice(id="v1", name="Aria", extra=EXTRA)
    yield Narrator(id="n1", voices=(Voice(id="v1"),), extra=EXTRA)
    yield Message(id="m1", type="INVITE", sms_body="{{link}}", extra=EXTRA)
    yield MessageGroup(id="g1", messages=(Message(id="m1"),), type=InterviewType("odd"))
    yield Team(id="t1", name="A", extra=EXTRA)
    yield NewTeam("A", user_ids=("u1",))
    window = WindowStatus(limit=100, period=60.0, used=4, remaining=96)
    yield RateLimitStatus(windows=(window,), queued=QueueStatus(bulk=2), held_until=THEN)


EVERY = list(one_of_each())
by_class = pytest.mark.parametrize("model", EVERY, ids=lambda model: type(model).__name__)


def test_the_table_has_every_public_model() -> None:
    """A model can't be added without being tested here."""
    public = {getattr(models, name) for name in models.__all__}
    classes = {each for each in public if attrs.has(each)}
    assert {type(model) for model in EVERY} == classes
    assert public - classes == {*ENUMS, AudioState}


@by_class
def test_a_model_is_frozen_and_slotted(model: Any) -> None:
    """No one changes an object that others hold too, or misspells a field unseen."""
    name = attrs.fields(type(model))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(model, name, "changed")
    assert not hasattr(model, "__dict__")


@by_class
def test_a_model_can_be_pickled_copied_compared_and_hashed(model: Any) -> None:
    """Models live in sets, caches and other processes."""
    for again in (
        pickle.loads(pickle.dumps(model)),
        copy.copy(model),
        copy.deepcopy(model),
        attrs.evolve(model),
    ):
        assert again == model
        assert type(again) is type(model)
        assert hash(again) == hash(model)
        assert repr(again) == repr(model)


@by_class
def test_the_repr_of_a_model_can_be_published(model: Any) -> None:
    """No name, address, number, link to a person or invite token gets into a log."""
    for private in PRIVATE:
        assert private not in repr(model)
        assert private not in str(model)


@pytest.mark.parametrize("model", [NewCandidate, NewUser])
def test_what_is_refused_is_not_repeated(model: Any) -> None:
    """A wrong number or address is refused at construction, and stays out of the message."""
    good = {**PEOPLE, "team_ids": ["t1"]} if model is NewUser else PEOPLE
    with pytest.raises(InvalidPhoneNumberError) as wrong_phone:
        model(**{**good, "phone": "202-555-0123"})
    with pytest.raises(InvalidEmailError) as wrong_email:
        model(**{**good, "email": "ada@@example.com"})
    assert "555" not in str(wrong_phone.value)
    assert "ada" not in str(wrong_email.value)
    with pytest.raises(TypeError, match="unknown") as unknown_field:
        model(**{**good, "unknown": 1})
    for error in (wrong_phone.value, wrong_email.value, unknown_field.value):
        # As a reporter shows it, with the locals of all frames but this test's own.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        shown = "".join(TracebackException.from_exception(error, capture_locals=True).format())
        assert not any(private in shown for private in ("555", "ada@", "Lovelace"))


def test_a_new_candidates_number_is_normalised() -> None:
    """International notation becomes E.164, and an evolved candidate is checked again."""
    candidate = NewCandidate("Ada", "Lovelace", "ada@example.com", "+1 (202) 555-0123")
    assert candidate.phone == "+12025550123"
    with pytest.raises(InvalidPhoneNumberError):
        attrs.evolve(candidate, phone="12")


def test_a_new_user_needs_no_number() -> None:
    """A user's phone is optional; if given, it is checked."""
    user = NewUser("Ada", "Lovelace", "ada@example.com", ["t1"])
    assert user.phone is None
    assert attrs.evolve(user, phone="+1 202 555 0123").phone == "+12025550123"


def test_ids_are_kept_as_a_tuple_and_one_text_is_no_list() -> None:
    """A list of ids makes a hashable object; one id in place of a list is a slip."""
    user = NewUser("Ada", "Lovelace", "ada@example.com", ["t1", "t2"])
    assert user.team_ids == ("t1", "t2")
    assert NewTeam("A", user_ids=["u1"]).user_ids == ("u1",)
    assert NewTeam("A").user_ids is None
    assert len({user, attrs.evolve(user), NewTeam("A", user_ids=["u1"])}) == 2
    with pytest.raises(InvalidRequestError, match="list"):
        NewUser("Ada", "Lovelace", "ada@example.com", "t1")
    with pytest.raises(InvalidRequestError, match="list"):
        NewTeam("A", user_ids="u1")


@pytest.mark.parametrize("vocabulary", ENUMS)
@given(WORDS)
def test_an_unknown_word_stays_readable_as_text(vocabulary: type[OpenEnum], word: str) -> None:
    """A new word of the server equals its text, and survives copying and pickling."""
    member = vocabulary(word)
    assert isinstance(member, vocabulary)
    assert isinstance(member, str)
    assert member == word
    assert hash(member) == hash(word)
    assert (member.name, member.value, str(member), f"{member}") == (word, word, word, word)
    assert member.is_known is False
    assert member == vocabulary(word)
    assert member not in list(vocabulary)
    assert repr(member) == f"<{vocabulary.__name__}.{word}: {word!r}>"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(member, protocol))
        assert (type(again), again) == (vocabulary, word)
    for again in (copy.copy(member), copy.deepcopy(member)):
        assert (type(again), again) == (vocabulary, word)


@pytest.mark.parametrize("vocabulary", ENUMS)
def test_a_known_word_is_the_one_member(vocabulary: type[OpenEnum]) -> None:
    """Documented words are found by value, are themselves after pickling, and equal text."""
    assert list(vocabulary)
    for member in vocabulary:
        assert vocabulary(member.value) is member
        assert pickle.loads(pickle.dumps(member)) is member
        assert member == member.value
        assert member.is_known is True


@pytest.mark.parametrize("value", [None, 1, 1.5, True, b"active", ["active"]])
def test_what_is_no_text_is_no_word(value: Any) -> None:
    """Only text can be a new word."""
    with pytest.raises(ValueError, match="is not a valid"):
        InterviewStatus(value)


@pytest.mark.parametrize(
    ("status", "url", "state"),
    [
        (None, None, AudioState.PROCESSING),
        (None, "", AudioState.PROCESSING),
        (None, "https://x/a.mp3", AudioState.READY),
        # The state goes before the URL: a replaced recording may still be there.
        ("processing", "https://x/a.mp3", AudioState.PROCESSING),
        ("queued", None, AudioState.PROCESSING),
        ("", "https://x/a.mp3", AudioState.PROCESSING),
        ("complete", None, AudioState.READY),
        (" COMPLETED ", None, AudioState.READY),
        ("error", "https://x/a.mp3", AudioState.FAILED),
        ("Failed", None, AudioState.FAILED),
    ],
)
def test_the_state_of_audio_follows_the_servers_word(
    status: str | None, url: str | None, state: AudioState
) -> None:
    """Case and spaces don't matter; an unknown word means that it still runs."""
    assert audio_state_of(status, url) is state
    question = Question(id="q", transcription_status=status, audio_url=url)
    assert question.audio_state is state


def test_the_words_of_audio_states_can_be_replaced() -> None:
    """Both sets are the caller's choice, and the defaults don't overlap."""
    assert not READY_WORDS & FAILED_WORDS
    assert audio_state_of("fertig", None, ready_words={"fertig"}) is AudioState.READY
    assert audio_state_of("kaputt", None, failed_words={"kaputt"}) is AudioState.FAILED
    assert audio_state_of("done", None, ready_words={"fertig"}) is AudioState.PROCESSING


@pytest.mark.parametrize(
    ("score_card", "evaluation"),
    [
        (None, None),
        ({}, None),
        ({"evaluationType": None}, None),
        ({"evaluationType": 3}, None),
        ({"evaluationType": "hybrid"}, EvaluationType.HYBRID),
        ({"evaluationType": "by_committee"}, EvaluationType("by_committee")),
    ],
)
def test_who_evaluated_is_read_from_the_score_card(
    score_card: dict[str, Any] | None, evaluation: EvaluationType | None
) -> None:
    """A card without a word names no one."""
    assert InterviewResults(score_card=score_card).evaluation_type == evaluation


@pytest.mark.parametrize(
    ("success", "errors", "complete"),
    [(True, (), True), (False, (), False), (True, ("x",), False), (False, ("x",), False)],
)
def test_a_bulk_update_is_complete_only_without_errors(
    success: bool, errors: tuple[str, ...], complete: bool
) -> None:
    """A 200 with errors is a partial failure."""
    result = BulkUpdateResult(success=success, updated_count=1, errors=errors)
    assert result.is_complete is complete


def test_the_tightest_window_decides_what_remains() -> None:
    """Room in the hour is no use when the minute is full; no window means nothing is known."""
    windows = tuple(
        WindowStatus(limit=100, period=60.0, used=100 - left, remaining=left) for left in (7, 3, 9)
    )
    assert RateLimitStatus(windows=windows).remaining == 3
    assert RateLimitStatus(windows=()).remaining == 0


def test_extra_never_makes_two_objects_equal_or_unhashable() -> None:
    """Unknown fields count in comparisons, and may hold what can't be hashed."""
    one, other = Team(id="t", extra={"a": [1]}), Team(id="t", extra={"a": [2]})
    assert one != other
    assert len({one, other}) == 2


def test_the_mark_of_an_argument_not_given_is_one_and_says_so() -> None:
    """UNSET stays itself in copies and pickles, and reads well in help texts."""
    assert repr(UNSET) == "UNSET"
    assert copy.deepcopy(UNSET) is UNSET
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET


def _class_of(model: Model) -> Any:
    return type(model)


MODELS = [model for model in EVERY if isinstance(model, Model)]
SENT = [model for model in MODELS if "extra" in attrs.fields_dict(_class_of(model))]
by_sent = pytest.mark.parametrize("model", SENT, ids=lambda model: type(model).__name__)
by_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


def _unalike(name: str) -> Any:
    """Return what a server may send where a model expects something else."""
    return {"odd": [name, 1.5, None, True]}


@by_model
@pytest.mark.parametrize("by_alias", [False, True])
def test_plain_data_goes_both_ways(model: Model, by_alias: bool) -> None:
    """What `to_dict` gives is JSON, and `from_dict` makes the same object of it again."""
    data = model.to_dict(by_alias=by_alias)
    again = type(model).from_dict(json.loads(json.dumps(data)))
    assert again == model
    assert getattr(again, "extra", None) == getattr(model, "extra", None)
    assert again.to_dict(by_alias=by_alias) == data


@by_sent
def test_plain_data_is_what_the_server_sent(model: Model) -> None:
    """The API's own names and values are read by the converter as well."""
    assert decode(model.to_dict(by_alias=True), type(model)) == model


@by_model
def test_secrets_can_be_left_out(model: Model) -> None:
    """Without secrets, nothing is shown that the repr hides."""
    shown = json.dumps(model.to_dict(secrets=False))
    assert not any(secret in shown for secret in (*PRIVATE, '"transcript"', "deep"))
    fields = {each.name for each in attrs.fields(_class_of(model)) if each.repr}
    assert model.to_dict(secrets=False).keys() == fields


@by_sent
def test_an_odd_value_survives_plain_data(model: Model) -> None:
    """What an optional field can't hold stays in `extra`, under the API's name."""
    for name in model.to_dict(by_alias=True):
        data = model.to_dict(by_alias=True) | {name: _unalike(name)}
        if name in {"id", "summary", "scoreCard", *getattr(model, "extra", ())}:
            continue
        read = type(model).from_dict(data)
        assert read.to_dict(by_alias=True)[name] == _unalike(name)
        assert type(model).from_dict(json.loads(json.dumps(read.to_dict()))) == read


@pytest.mark.parametrize("data", [None, [], "x", {}, {"id": None}, {"id": 1}, {"title": "x"}])
def test_what_describes_no_model_is_refused(data: Any) -> None:
    """An id is indispensable; the message names the field, and no value."""
    with pytest.raises(ValueError, match=r"^Question needs a (mapping|readable id)\.$"):
        Question.from_dict(data)


@by_model
def test_a_model_is_a_type_of_pydantic(model: Model) -> None:
    """It passes as it is, is read from either spelling, and serialized as its schema says."""
    adapter = pydantic.TypeAdapter(type(model))
    assert adapter.validate_python(model) is model
    for by_alias in (False, True):
        assert adapter.validate_python(model.to_dict(by_alias=by_alias)) == model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = adapter.dump_json(model)
    assert adapter.validate_json(text) == model
    schema = adapter.json_schema(mode="serialization")
    named = {each.name for each in attrs.fields(_class_of(model))} - {"extra"}
    properties = schema.get("properties") or next(iter(schema["$defs"].values()))["properties"]
    assert properties.keys() == named


def test_models_are_fields_of_a_pydantic_model() -> None:
    """Errors say where, dates are dates in the schema, and new words stay readable."""

    class Batch(pydantic.BaseModel):
        interview: Interview
        questions: list[Question] = []

    batch = Batch.model_validate({"interview": {"id": "i", "status": "brand_new", "x": 1}})
    assert batch.interview == Interview(id="i", status=InterviewStatus("brand_new"), extra={"x": 1})
    with pytest.raises(pydantic.ValidationError) as caught:
        Batch.model_validate({"interview": {"id": "i", "createdAt": "soon"}})
    assert caught.value.errors()[0]["loc"] == ("interview", "created_at")
    schema = Batch.model_json_schema()
    assert schema["properties"]["questions"]["items"] == {"$ref": "#/$defs/Question"}
    created = schema["$defs"]["Question"]["properties"]["created_at"]
    assert {"type": "string", "format": "date-time"} in created["anyOf"]


def test_pydantic_is_imported_by_pydantic_alone() -> None:
    """Loading and using the models needs no pydantic."""
    code = (
        "import sys; from gather_async.models import Question;"
        "Question.from_dict(Question(id='q').to_dict());"
        "print(*[name for name in sys.modules if name.startswith('pydantic')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_what_a_model_names_hides_a_stray_field_of_that_name() -> None:
    """A field that the server spells as the attribute doesn't replace the attribute's value."""
    candidate = decode({"id": "c", "firstName": "Ada", "first_name": "stray"}, Candidate)
    assert candidate.to_dict()["first_name"] == "Ada"


@pytest.mark.parametrize("data", [None, [], "text"])
def test_what_is_no_object_is_refused_by_pydantic(data: Any) -> None:
    """A field of a model takes an instance or a mapping, and says so otherwise."""
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(Candidate).validate_python(data)


@pytest.mark.parametrize(
    ("model", "name", "odd"),
    [
        (Candidate, "createdAt", "0001-01-01T00:00:00+23:59"),
        (Question, "updatedAt", "9999-12-31T23:59:59-10:00"),
        (CandidateInterview, "status", 2),
        (MessageGroup, "status", 0),
    ],
)
def test_an_odd_field_costs_no_other_in_either_reading(model: Any, name: str, odd: object) -> None:
    """An instant beyond the calendar, and a number for a word, stay raw in ``extra``."""
    data = {"id": "x", name: odd}
    for read in (model.from_dict(data), decode(data, model)):
        assert (read.id, read.extra) == ("x", {name: odd})
        assert type(read).from_dict(read.to_dict(by_alias=True)) == read
