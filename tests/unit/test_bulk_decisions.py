"""The pure decisions of a bulk invite: look-ups, breaker, refusals, kept errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.bulk.existing import LookupCosts, LookupStrategy, choose_strategy
from gather_async.bulk.requests import (
    CircuitBreaker,
    deserialize_error,
    is_fatal,
    is_rejection,
    names_interview,
    serialize_error,
    suggests_duplicate,
)
from gather_async.errors import (
    AuthenticationError,
    BadRequestError,
    ConflictError,
    GatherAPIError,
    GatherConnectionError,
    GatherError,
    InvalidPhoneNumberError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ResponseDecodeError,
    ServerError,
)


def _answer(
    kind: type[GatherAPIError], status: int, message: str = "", **details: str
) -> GatherAPIError:
    return kind(
        "POST /x: refused",
        status=status,
        code="CODE",
        message=message,
        details=details,
        request_id="r-1",
        body='{"email": "ada@example.com"}',
        headers={"x": "y"},
    )


@given(rows=st.integers(1, 500), pages=st.integers(1, 60))
def test_the_cheaper_way_is_taken_when_the_rows_are_known(rows: int, pages: int) -> None:
    """One probe of the list aside, look-ups cost no more than either way alone."""
    choice = choose_strategy(LookupCosts(looked=0, to_look=rows, pages_left=pages - 1))
    cost = 1 + (rows if choice is LookupStrategy.EACH else pages - 1)
    assert cost <= 1 + min(rows, pages)


@given(rows=st.integers(1, 500), pages=st.integers(1, 60))
def test_unknown_rows_cost_at_most_twice_the_best(rows: int, pages: int) -> None:
    """Without knowing how many rows come, the bill stays within twice that of knowing."""
    cost = 1  # the probe, which is the list's first page
    for looked in range(rows):
        if (
            choose_strategy(LookupCosts(looked=looked, to_look=None, pages_left=pages - 1))
            is LookupStrategy.LIST
        ):
            cost += pages - 1
            break
        cost += 1
    assert cost <= 1 + 2 * min(rows, pages)


def test_a_list_of_unknown_length_is_not_read() -> None:
    """Without counts from the server, each row is looked up."""
    assert (
        choose_strategy(LookupCosts(looked=9, to_look=None, pages_left=None)) is LookupStrategy.EACH
    )


def test_the_breaker_opens_after_a_run_of_failures_only() -> None:
    """A success starts the count anew, until the breaker is open."""
    error = GatherError("no")
    breaker = CircuitBreaker(3).failed(error).failed(error).succeeded().failed(error).failed(error)
    assert not breaker.is_open
    breaker = breaker.failed(error)
    assert breaker.is_open
    assert breaker.succeeded().is_open
    assert breaker.responded().is_open
    assert breaker.last is error


def test_the_breaker_shows_a_mistake_of_the_job_from_one_of_the_row() -> None:
    """Refusals count while they have one code; each shows that the server is there."""
    same, other = _answer(BadRequestError, 400), _answer(NotFoundError, 404)
    lost = GatherConnectionError("cut", maybe_processed=True)
    breaker = CircuitBreaker(3)
    for error in (same, other, same, other, same, same):
        breaker = breaker.failed(error)
    assert (breaker.refusals, breaker.is_open) == (2, False)
    assert breaker.failed(same).is_open
    away = breaker.failed(lost).failed(lost)
    assert not away.failed(same).is_open
    assert away.failed(lost).is_open
    assert not away.responded().failed(lost).is_open


@pytest.mark.parametrize(
    ("error", "refused", "ends", "duplicate"),
    [
        (_answer(AuthenticationError, 401), False, True, False),
        (_answer(PermissionDeniedError, 403), False, True, False),
        (_answer(BadRequestError, 400), True, False, False),
        (_answer(BadRequestError, 400, "email already in use"), True, False, True),
        (_answer(ConflictError, 409), True, False, True),
        (_answer(NotFoundError, 404), True, False, False),
        (_answer(GatherAPIError, 408), False, False, False),
        (_answer(RateLimitedError, 429), False, False, False),
        (_answer(ServerError, 500), False, False, False),
        (GatherConnectionError("cut", maybe_processed=True), False, False, False),
        (ResponseDecodeError("odd", body="", path="$"), False, False, False),
        (InvalidPhoneNumberError("no", reason="letters"), True, False, False),
    ],
)
def test_each_failure_has_its_meaning(
    error: GatherError, refused: bool, ends: bool, duplicate: bool
) -> None:
    """A refusal ends the row, a bad key ends the job, and all else may pass."""
    assert is_rejection(error) is refused
    assert is_fatal(error) is ends
    assert suggests_duplicate(error) is duplicate


@pytest.mark.parametrize(
    ("details", "is_new", "meant"),
    [
        ({"resource": "interview"}, False, True),
        ({"resource": "Interview", "id": "i-1"}, False, True),
        ({"id": "i-1"}, False, True),
        ({"resource": "candidate"}, True, False),
        ({}, True, True),
        ({}, False, False),
    ],
)
def test_a_missing_interview_is_reported_from_a_missing_person(
    details: dict[str, str], is_new: bool, meant: bool
) -> None:
    """Only the interview's absence is everybody's problem."""
    error = _answer(NotFoundError, 404, **details)
    assert isinstance(error, NotFoundError)
    assert names_interview(error, "i-1", is_new=is_new) is meant


def test_a_kept_error_can_be_acted_on_and_holds_nothing_personal() -> None:
    """Class, message, status, code and request id survive; the server's words don't."""
    text = serialize_error(_answer(ConflictError, 409, "ada@example.com exists", email="ada@e.com"))
    assert "ada" not in text
    error = deserialize_error(text)
    assert isinstance(error, ConflictError)
    assert (error.status, error.code, error.request_id) == (409, "CODE", "r-1")
    assert (error.message, error.details, error.body, error.headers) == ("", {}, "", {})
    assert str(error) == "POST /x: refused"


def test_kept_errors_of_every_kind_come_back() -> None:
    """Attributes of errors that never reached the server survive, too."""
    phone = deserialize_error(
        serialize_error(InvalidPhoneNumberError("no letters", reason="letters"))
    )
    assert isinstance(phone, InvalidPhoneNumberError)
    assert phone.reason == "letters"
    lost = deserialize_error(serialize_error(GatherConnectionError("cut", maybe_processed=True)))
    assert isinstance(lost, GatherConnectionError)
    assert lost.maybe_processed
    odd = deserialize_error('{"type": "os", "message": "m", "attributes": {}}')
    assert type(odd) is GatherError
