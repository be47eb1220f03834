"""Consequences of a failed request for a row, and for the job."""

import json
import re
from typing import Any

from gather_async import errors
from gather_async.errors import (
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
)

__all__ = [
    "InterviewNotFound",
    "deserialize_error",
    "is_fatal",
    "is_rejection",
    "may_be_processed",
    "names_interview",
    "serialize_error",
    "suggests_duplicate",
]

# The server's own words may repeat what it was sent: a name, an address, a number.
_PRIVATE = frozenset({"message", "details", "body", "headers"})
_EMPTY: dict[str, Any] = {"message": "", "details": {}, "body": "", "headers": {}}


def serialize_error(error: GatherError) -> str:
    """Return JSON of the error's class, its safe message, and its plain attributes."""
    kept = {
        name: value
        for name, value in vars(error).items()
        if name not in _PRIVATE
        and not name.startswith("_")
        and isinstance(value, str | int | float | None)
    }
    return json.dumps({"type": type(error).__name__, "message": str(error), "attributes": kept})


def deserialize_error(text: str) -> GatherError:
    """Return the error again; one of an unknown class comes back as a plain `GatherError`."""
    kept = json.loads(text)
    found = getattr(errors, kept["type"], GatherError)
    cls = found if isinstance(found, type) and issubclass(found, GatherError) else GatherError
    error = cls.__new__(cls, kept["message"])
    error.args = (kept["message"],)
    # What was left out is empty rather than absent, so that reading it never fails.
    absent = _EMPTY if issubclass(cls, GatherAPIError) else {"body": ""}
    vars(error).update({**absent, **kept["attributes"]})
    return error


_REFUSED = range(300, 500)
_REQUEST_TIMEOUT = 408
_DUPLICATE = re.compile(r"duplicate|already|exist|conflict|unique", re.IGNORECASE)


class InterviewNotFound(Exception):  # noqa: N818 - a signal between our own modules
    """The server doesn't know the interview, so no row of the job can be invited."""

    def __init__(self, error: NotFoundError) -> None:
        super().__init__(str(error))
        self.error = error


def is_fatal(error: GatherError) -> bool:
    """Return whether every other row would fail the same way.

    A read-only key may be answered with 401 or with 403; the documentation
    contradicts itself. Source: /api-reference/credentials
    """
    return isinstance(
        error,
        AuthenticationError | PermissionDeniedError | ClientClosedError | ConfigurationError,
    )


def is_rejection(error: GatherError) -> bool:
    """Return whether a write was refused for good and surely not carried out."""
    if is_fatal(error):
        return False
    if isinstance(error, GatherAPIError):
        return (
            error.status in _REFUSED
            and error.status != _REQUEST_TIMEOUT
            and not isinstance(error, RateLimitedError)
        )
    return isinstance(error, InvalidRequestError)


def may_be_processed(error: GatherError) -> bool:
    """Return whether the server may have carried the request out, or may still do so."""
    return bool(getattr(error, "maybe_processed", False))


def suggests_duplicate(error: GatherError) -> bool:
    """Return whether the refusal may mean that the thing is there already.

    What the server answers to a duplicate is undocumented: 409, or a 400 whose
    words say so.
    """
    if isinstance(error, ConflictError):
        return True
    return isinstance(error, BadRequestError) and bool(
        _DUPLICATE.search(f"{error.code} {error.message} {error.details}")
    )


def names_interview(error: NotFoundError, interview_id: str, *, is_new: bool) -> bool:
    """Return whether it is the interview that was not found, rather than the person.

    Args:
        error: The answer to an invite.
        interview_id: The job's interview.
        is_new: Whether this run has just made the person, who is there therefore.

    Source: /guides/error-handling (details.resource and details.id of a 404)
    """
    resource = str(error.details.get("resource", "")).lower()
    if error.details.get("id") == interview_id:
        return True
    if "candidate" in resource:
        return False
    return "interview" in resource or is_new
