"""The error tree: pickling, what also catches each error, and messages that are safe to publish."""

import copy
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gather_async import errors
from gather_async.errors import (
    AlreadyHandledError,
    AudioGenerationError,
    AudioTimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    GatherAPIError,
    GatherConnectionError,
    GatherError,
    GatherTimeoutError,
    InvalidEmailError,
    InvalidPhoneNumberError,
    InvalidRequestError,
    InviteNotDeliverableError,
    LeaseHeldError,
    NotFoundError,
    PermissionDeniedError,
    QuotaUnavailableError,
    QuotaWaitError,
    RateLimitedError,
    ResponseDecodeError,
    ServerError,
    WaitTimeoutError,
    WebhookFailure,
    WebhookVerificationError,
)
from gather_async.models.question import Question

SOON = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
QUESTION = Question(id="q1", title="Why?", extra={"deep": [1, {"x": None}]})
ANSWERED: dict[str, Any] = {
    "code": "CODE",
    "message": "words",
    "details": {"field": "email", "seen": [1]},
    "request_id": "r1",
    "body": "{}",
    "headers": {"x-a": "1"},
}


def one_of_each() -> Iterator[GatherError]:
    """Give one error of every class, each with every attribute set."""
    yield GatherError("root")
    for plain in (
        ConfigurationError,
        ClientClosedError,
        InvalidRequestError,
        InvalidEmailError,
        InviteNotDeliverableError,
        AlreadyHandledError,
        QuotaUnavailableError,
    ):
        yield plain("what to do")
    yield InvalidPhoneNumberError("what to do", reason="letters")
    yield QuotaWaitError("later", available_at=SOON, wait=12.5)
    yield LeaseHeldError("later", wait=12.5)
    yield GatherConnectionError("broke", maybe_processed=True)
    yield GatherTimeoutError("late", maybe_processed=True)
    api_errors: dict[int, type[GatherAPIError]] = {
        418: GatherAPIError,
        400: BadRequestError,
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        409: ConflictError,
        429: RateLimitedError,
        503: ServerError,
    }
    for status, answered in api_errors.items():
        error = answered("summary", status=status, **ANSWERED)
        error.maybe_processed = True
        if isinstance(error, RateLimitedError):
            error.reset_at = SOON
        yield error
    yield ResponseDecodeError("nonsense", body="<html>", path="$.data.id", maybe_processed=True)
    yield AudioGenerationError("failed", question=QUESTION)
    yield AudioTimeoutError("late", question=QUESTION, waited=300.0)
    yield WaitTimeoutError("late", last=QUESTION, waited=300.0)
    yield WebhookVerificationError("no", reason=WebhookFailure.TOO_OLD)


EVERY = list(one_of_each())


def test_the_table_has_every_error_of_the_tree() -> None:
    """An error class can't be added without being tested here."""
    public = {
        item
        for item in vars(errors).values()
        if isinstance(item, type) and issubclass(item, GatherError)
    }
    assert {type(error) for error in EVERY} == public
    assert {each.__name__ for each in public} < set(errors.__all__)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling_with_all_its_attributes(
    error: GatherError, protocol: int
) -> None:
    """A process pool or a task queue hands over the same error, but for its body."""
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
    if body := vars(error).get("body"):
        assert vars(again).pop("body") == "[dropped when pickled: set .pickles_body to keep it]"
        assert vars(again) == {name: vars(error)[name] for name in vars(again)}
        error = copy.copy(error)
        error.pickles_body = True
        again = pickle.loads(pickle.dumps(error, protocol))
        assert vars(again)["body"] == body
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied_and_keeps_its_notes(error: GatherError) -> None:
    """Copying and annotating an error lose nothing."""
    noted = copy.copy(error)
    noted.add_note("row 17")
    again = copy.deepcopy(noted)
    assert vars(again) == {**vars(error), "__notes__": ["row 17"]}
    assert "__notes__" not in vars(error)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_the_repr_shows_the_message_and_no_evidence(error: GatherError) -> None:
    """Attributes may hold personal data, so a repr or a log shows the message alone."""
    assert repr(error) == f"{type(error).__name__}({str(error)!r})"


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (ConfigurationError, ValueError),
        (ClientClosedError, RuntimeError),
        (InvalidRequestError, ValueError),
        (InvalidPhoneNumberError, InvalidRequestError),
        (InvalidEmailError, InvalidRequestError),
        (InviteNotDeliverableError, InvalidRequestError),
        (QuotaWaitError, TimeoutError),
        (GatherConnectionError, ConnectionError),
        (GatherTimeoutError, TimeoutError),
        (AudioTimeoutError, TimeoutError),
        (WaitTimeoutError, GatherTimeoutError),
        (BadRequestError, GatherAPIError),
        (RateLimitedError, GatherAPIError),
        (ServerError, GatherAPIError),
    ],
)
def test_an_error_is_caught_by_the_builtin_that_fits(
    error: type[GatherError], also: type[Exception]
) -> None:
    """Code that knows only the standard library's errors catches ours too."""
    assert issubclass(error, also)
    assert issubclass(error, GatherError)


def test_no_error_is_a_cancellation() -> None:
    """Our errors are ordinary exceptions: `except Exception` sees them, cancellation isn't one."""
    assert issubclass(GatherError, Exception)


def test_attributes_that_not_every_error_sets_have_defaults() -> None:
    """A handler can read ``maybe_processed`` and ``reset_at`` without looking first."""
    error = RateLimitedError("x", status=429, **ANSWERED)
    assert error.maybe_processed is False
    assert error.reset_at is None
    assert ResponseDecodeError("x", body="", path="$").maybe_processed is False
