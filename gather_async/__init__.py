"""The asyncio SDK for the Gather API: typed, rate-limited, crash-safe.

Names are loaded when first used (PEP 562): a program that never calls the API, such as a
command's ``--version``, a migration or a test run, doesn't pay for aiohttp.
"""

from typing import TYPE_CHECKING

from gather_async.version import __version__

if TYPE_CHECKING:
    from gather_async.client import GatherClient
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
    from gather_async.models import (
        AudioState,
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
    from gather_async.observability import (
        CallFailed,
        CallSucceeded,
        ClientEvent,
        QuotaWaited,
        RequestStarted,
        ResponseReceived,
        RetryScheduled,
    )
    from gather_async.phone import PhonePolicy, to_e164
    from gather_async.pool import GatherPool
    from gather_async.protocol.polling import PollPolicy
    from gather_async.protocol.responses import Response
    from gather_async.protocol.retry import RetryPolicy
    from gather_async.protocol.rolling_windows import DEFAULT_RATE_LIMITS, RateLimit
    from gather_async.settings import DEFAULT_RETRY, DEFAULT_TIMEOUT, PRODUCTION, STAGING
    from gather_async.unset import UNSET

__all__ = [
    "AlreadyHandledError",
    "AudioGenerationError",
    "AudioState",
    "AudioTimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BulkUpdateResult",
    "CallFailed",
    "CallSucceeded",
    "Candidate",
    "CandidateInterview",
    "CandidateInterviewStatus",
    "ClientClosedError",
    "ClientEvent",
    "ConfigurationError",
    "ConflictError",
    "DEFAULT_RATE_LIMITS",
    "DEFAULT_RETRY",
    "DEFAULT_TIMEOUT",
    "DeliveryType",
    "EvaluationType",
    "GatherAPIError",
    "GatherClient",
    "GatherConnectionError",
    "GatherError",
    "GatherPool",
    "GatherTimeoutError",
    "Interview",
    "InterviewQuestion",
    "InterviewResults",
    "InterviewStatus",
    "InterviewType",
    "InvalidEmailError",
    "InvalidPhoneNumberError",
    "InvalidRequestError",
    "InviteNotDeliverableError",
    "LeaseHeldError",
    "Message",
    "MessageGroup",
    "Narrator",
    "NewCandidate",
    "NewTeam",
    "NewUser",
    "NotFoundError",
    "PRODUCTION",
    "PermissionDeniedError",
    "PhonePolicy",
    "PollPolicy",
    "Question",
    "QuotaUnavailableError",
    "QuotaWaitError",
    "QuotaWaited",
    "RateLimit",
    "RateLimitStatus",
    "RateLimitedError",
    "RequestStarted",
    "Response",
    "ResponseDecodeError",
    "ResponseReceived",
    "RetryPolicy",
    "RetryScheduled",
    "STAGING",
    "ServerError",
    "SummaryStatus",
    "Team",
    "UNSET",
    "User",
    "Voice",
    "WaitTimeoutError",
    "WebhookFailure",
    "WebhookVerificationError",
    "__version__",
    "to_e164",
]

# Where `__all__` is at home, the cheapest module first: a name's home is the first whose own
# `__all__` has it.
_HOMES = (
    "errors",
    "unset",
    "phone",
    "protocol.retry",
    "protocol.rolling_windows",
    "models",
    "protocol.polling",
    "observability",
    "settings",
    "protocol.responses",
    "client",
    "pool",
)

# Packages that are reached as attributes, as if they had been imported.
_PACKAGES = frozenset({"bulk", "errors", "models", "webhooks"})

if not TYPE_CHECKING:  # a checker that saw `__getattr__` would accept any name

    def __getattr__(name: str) -> object:
        """Return a public name from its module, which is imported now."""
        from importlib import import_module  # noqa: PLC0415 - only the first use pays

        if name in _PACKAGES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        modules = (import_module(f"{__name__}.{home}") for home in _HOMES)
        home = next(module for module in modules if name in module.__all__)
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
