"""What a failed request means for a row, and for the job."""

import re

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
    "InterviewMissing",
    "ends_job",
    "is_refusal",
    "may_be_duplicate",
    "names_interview",
]

_REFUSED = range(300, 500)
_REQUEST_TIMEOUT = 408
_DUPLICATE = re.compile(r"duplicate|already|exist|conflict|unique", re.IGNORECASE)


class InterviewMissing(Exception):  # noqa: N818 - a signal between our own modules
    """The server doesn't know the interview, so no row of the job can be invited."""

    def __init__(self, error: NotFoundError) -> None:
        super().__init__(str(error))
        self.error = error


def ends_job(error: GatherError) -> bool:
    """Return whether every other row would fail the same way.

    A read-only key may be answered with 401 or with 403; the documentation
    contradicts itself. Source: /api-reference/credentials
    """
    return isinstance(
        error,
        AuthenticationError | PermissionDeniedError | ClientClosedError | ConfigurationError,
    )


def is_refusal(error: GatherError) -> bool:
    """Return whether a write was refused for good and surely not carried out."""
    if ends_job(error):
        return False
    if isinstance(error, GatherAPIError):
        return (
            error.status in _REFUSED
            and error.status != _REQUEST_TIMEOUT
            and not isinstance(error, RateLimitedError)
        )
    return isinstance(error, InvalidRequestError)


def may_be_duplicate(error: GatherError) -> bool:
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
