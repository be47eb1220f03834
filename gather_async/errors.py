"""Every error this package raises, in one tree.

::

    GatherError
    ├── ConfigurationError (ValueError)
    ├── ClientClosedError (RuntimeError)
    ├── InvalidRequestError (ValueError)          refused before sending
    │   ├── InvalidPhoneNumberError
    │   ├── InvalidEmailError
    │   └── InviteNotDeliverableError
    ├── QuotaWaitError (TimeoutError)             refused before queueing
    ├── QuotaUnavailableError                     the server that keeps a shared quota is gone
    ├── LeaseHeldError                            another machine runs this job
    ├── AlreadyHandledError                       a webhook handler's second run: roll back
    ├── GatherConnectionError (ConnectionError)
    ├── GatherTimeoutError (TimeoutError)
    │   └── WaitTimeoutError                      what was awaited did not happen in time
    ├── GatherAPIError                            the server answered with an error
    │   ├── BadRequestError         400
    │   ├── AuthenticationError     401
    │   ├── PermissionDeniedError   403
    │   ├── NotFoundError           404
    │   ├── ConflictError           409
    │   ├── RateLimitedError        429
    │   └── ServerError             5xx
    ├── ResponseDecodeError                       2xx whose body makes no sense
    ├── AudioGenerationError
    ├── AudioTimeoutError (TimeoutError)
    └── WebhookVerificationError

A message names the next step and is safe to publish: it never holds the API
key, a secret, a phone number or an email address. What is needed to act on an
error is an attribute of it. Every error can be pickled, so that it survives a
process pool or a task queue; a pickle holds no ``body``, which may name persons,
unless ``pickles_body`` is True.
"""

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeVar

__all__ = [
    "AlreadyHandledError",
    "AudioGenerationError",
    "AudioTimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "GatherAPIError",
    "GatherConnectionError",
    "GatherError",
    "GatherTimeoutError",
    "InvalidEmailError",
    "InvalidPhoneNumberError",
    "InvalidRequestError",
    "InviteNotDeliverableError",
    "LeaseHeldError",
    "NotFoundError",
    "PermissionDeniedError",
    "QuotaUnavailableError",
    "QuotaWaitError",
    "RateLimitedError",
    "ResponseDecodeError",
    "ServerError",
    "WaitTimeoutError",
    "WebhookFailure",
    "WebhookVerificationError",
]


E = TypeVar("E", bound="GatherError")
_DROPPED_BODY = "[dropped when pickled: set .pickles_body to keep it]"


class GatherError(Exception):
    """The root of every error this package raises.

    Attributes:
        pickles_body: Whether a pickle of the error holds its ``body``. False: the
            copy's ``body`` says that it was dropped.
        published: What a pickle holds then of the other attributes that the server's
            words are in, such as ``message``.
    """

    pickles_body: bool = False
    published: Mapping[str, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        state = self.__dict__
        if state.get("body") and not self.pickles_body:
            # Task queues store pickles for days, out of reach of a request to erase a person.
            state = {**state, "body": _DROPPED_BODY, **(self.published or {})}
        return _restore, (type(self), self.args, state)

    # A copy stays in this process, so it keeps the body.
    def __copy__(self) -> Self:
        return _restore(type(self), self.args, self.__dict__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        args, state = deepcopy((self.args, self.__dict__), memo)
        return _restore(type(self), args, state)


def _restore(cls: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    """Rebuild a pickled error without calling its keyword-only constructor."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(GatherError, ValueError):
    """An argument of the client, a policy or a tool can't work; nothing was sent."""


class ClientClosedError(GatherError, RuntimeError):
    """The client was used after ``aclose()``, or from two event loops at once."""


class InvalidRequestError(GatherError, ValueError):
    """The call was refused before anything was sent."""


class InvalidPhoneNumberError(InvalidRequestError):
    """The phone number is not E.164, or not possible under the phone policy.

    Attributes:
        reason: What is wrong, as a short phrase that doesn't repeat the number.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidEmailError(InvalidRequestError):
    """The email address can't be one."""


class InviteNotDeliverableError(InvalidRequestError):
    """The invite could reach no one: no delivery type, or SMS without opt-in."""


class QuotaWaitError(GatherError, TimeoutError):
    """The rate limit has no room within ``max_wait``; the call was not queued.

    Attributes:
        available_at: When the call could start, aware UTC.
        wait: Seconds from now until then.
    """

    def __init__(self, message: str, *, available_at: datetime, wait: float) -> None:
        super().__init__(message)
        self.available_at = available_at
        self.wait = wait


class LeaseHeldError(GatherError):
    """Another process holds the lease, on this machine or another; nothing was begun.

    Attributes:
        wait: Seconds after which it is free, unless its holder renews it.
    """

    def __init__(self, message: str, *, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class AlreadyHandledError(GatherError):
    """A webhook handler completed an event that it had completed before, in a transaction.

    Roll the transaction back, and let the error leave the handler: the event is over.
    """


class QuotaUnavailableError(GatherError):
    """The server that keeps a shared quota can't be asked; nothing was sent.

    The error of the server's client is its ``__cause__``.
    """


class GatherConnectionError(GatherError, ConnectionError):
    """The connection could not be made, or broke before the response was whole.

    Attributes:
        maybe_processed: True if the request had left and may have been carried
            out, so that sending it again could do it twice.
        reason: Why, such as the certificate's fault, the name that has no address,
            or a proxy's status.
        host: The server that was asked for; None if unknown.
        is_permanent: True if trying again can't help: the certificate, a proxy that
            refuses, a URL that can't be used.
    """

    def __init__(
        self,
        message: str,
        *,
        maybe_processed: bool,
        reason: str = "",
        host: str | None = None,
        is_permanent: bool = False,
    ) -> None:
        super().__init__(message)
        self.maybe_processed = maybe_processed
        self.reason = reason
        self.host = host
        self.is_permanent = is_permanent


class GatherTimeoutError(GatherError, TimeoutError):
    """No whole response came in time.

    Attributes:
        maybe_processed: True if the request had left and may have been carried
            out, so that sending it again could do it twice.
        is_permanent: True if a response came, and was longer than the time allowed.
    """

    is_permanent: bool = False

    def __init__(self, message: str, *, maybe_processed: bool) -> None:
        super().__init__(message)
        self.maybe_processed = maybe_processed


class WaitTimeoutError(GatherTimeoutError):
    """A candidate interview had not got that far when the wait's deadline came.

    Attributes:
        last: The `CandidateInterview` or `InterviewResults` as last read; None if it
            never could be.
        waited: Seconds waited.
        maybe_processed: False: waiting only reads.
    """

    def __init__(self, message: str, *, last: Any, waited: float) -> None:
        super().__init__(message, maybe_processed=False)
        self.last = last
        self.waited = waited


class GatherAPIError(GatherError):
    """The server answered with an error.

    ``str()`` of the error is redacted; ``message``, ``details``, ``body`` and
    ``headers`` are as the server sent them and may hold personal data.

    Attributes:
        status: HTTP status, 300 to 599. Of an error envelope under 2xx it is the one that
            its code is documented with, or 400.
        code: The API's error code, such as ``VALIDATION_ERROR``; None if the body had none.
        message: The server's own words, or the status' standard phrase.
        details: The error's ``details`` object; empty if there was none.
        request_id: ``meta.requestId``, for the vendor's support; None if absent.
        body: The body as text, at most its first 64 KiB.
        headers: The response's headers, names in lower case.
        maybe_processed: True if this was a write and the status leaves open
            whether it was carried out (5xx, 408).
        retry_after: Seconds from the response that the server asked to be left alone;
            None if it didn't say.

    Source: /guides/error-handling
    """

    maybe_processed: bool = False
    retry_after: float | None = None

    def __init__(
        self,
        summary: str,
        *,
        status: int,
        code: str | None,
        message: str,
        details: Mapping[str, Any],
        request_id: str | None,
        body: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(summary)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.request_id = request_id
        self.body = body
        self.headers = headers


class BadRequestError(GatherAPIError):
    """400: the server refused a field; ``details`` may name it."""


class AuthenticationError(GatherAPIError):
    """401: the API key is missing, wrong or revoked."""


class PermissionDeniedError(GatherAPIError):
    """403: the API key may not do this."""


class NotFoundError(GatherAPIError):
    """404: there is no such object for this key's organization."""


class ConflictError(GatherAPIError):
    """409: the object exists already, or its state forbids the change."""


class RateLimitedError(GatherAPIError):
    """429: the quota of the key is used up, here or elsewhere.

    Attributes:
        reset_at: When the server has room again, aware UTC; None if it didn't say.
    """

    reset_at: datetime | None = None


class ServerError(GatherAPIError):
    """5xx: the server failed."""


class ResponseDecodeError(GatherError):
    """The server said 2xx, but its body makes no sense.

    Attributes:
        body: The body as text, at most its first 64 KiB.
        path: Where it stopped making sense, such as ``$.data.question.id``.
        maybe_processed: True if this was a write: the server said it was done.
    """

    def __init__(
        self, message: str, *, body: str, path: str, maybe_processed: bool = False
    ) -> None:
        super().__init__(message)
        self.body = body
        self.path = path
        self.maybe_processed = maybe_processed


class AudioGenerationError(GatherError):
    """The server says that the audio of a question could not be made.

    Attributes:
        question: The `Question` as last read.
    """

    def __init__(self, message: str, *, question: Any) -> None:
        super().__init__(message)
        self.question = question


class AudioTimeoutError(GatherError, TimeoutError):
    """Audio generation was not over when the wait's deadline came.

    Attributes:
        question: The `Question` as last read; None if it never could be.
        waited: Seconds waited.
    """

    def __init__(self, message: str, *, question: Any, waited: float) -> None:
        super().__init__(message)
        self.question = question
        self.waited = waited


class WebhookFailure(StrEnum):
    """The check for which a webhook delivery was not trusted."""

    MISSING_HEADER = "missing_header"
    MALFORMED_HEADER = "malformed_header"
    BAD_TIMESTAMP = "bad_timestamp"
    TOO_OLD = "too_old"
    IN_THE_FUTURE = "in_the_future"
    SIGNATURE_MISMATCH = "signature_mismatch"
    MALFORMED_BODY = "malformed_body"


class WebhookVerificationError(GatherError):
    """A webhook delivery can't be trusted.

    Attributes:
        reason: Which check failed.
    """

    def __init__(self, message: str, *, reason: WebhookFailure) -> None:
        super().__init__(message)
        self.reason = reason
