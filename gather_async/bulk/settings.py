"""Settings of a job, checked before anything happens."""

import asyncio
from collections.abc import Callable, Iterable
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from attrs import field, frozen
from attrs.validators import optional

from gather_async.bulk.progress import InviteProgress
from gather_async.bulk.source import CandidateSource, require_rows
from gather_async.errors import ConfigurationError, InviteNotDeliverableError
from gather_async.models.enums import DeliveryType
from gather_async.validators import Choice, Number

__all__ = ["InviteOptions", "JobLease", "JobLimits", "Settings"]


class JobLease(Protocol):
    """The sole permission to run a job, such as `gather_async.redis.RedisLease`."""

    @property
    def lost(self) -> asyncio.Event:
        """Set when the permission may be another machine's; asked for once it is entered."""
        ...

    async def __aenter__(self) -> object:
        """Get the permission, or raise if another machine has it."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> object:
        """Give it back, if it isn't lost."""
        ...


_RULES = ("reuse", "skip", "error")
_DELIVERY = frozenset(map(str, DeliveryType))
_LEASE = ("__aenter__", "__aexit__", "lost")


def _text(_: object, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigurationError(f"{attribute.name} must be text that isn't empty.")


def _optional_text(_: object, attribute: Any, value: Any) -> None:
    if value is not None:
        _text(_, attribute, value)


_COUNT = Number(least=1, whole=True)
_SECONDS = Number(least=0, unit="seconds")


def _delivery(types: Iterable[str]) -> tuple[str, ...]:
    if isinstance(types, str) or not isinstance(types, Iterable):
        raise ConfigurationError('delivery_types must be a list, such as ["email"].')
    words = tuple(str(word) for word in types)
    if not words:
        raise InviteNotDeliverableError(
            'An invite must go somewhere: delivery_types needs "email" or "sms".'
        )
    if not _DELIVERY.issuperset(words):
        # The server would refuse each row's invite, after its candidate was created.
        raise InviteNotDeliverableError('delivery_types takes "email" and "sms", in small letters.')
    return words


def _journal(path: str | PathLike[str] | None) -> Path | None:
    if path is None or path == ":memory:":
        return None
    is_path = isinstance(path, str | PathLike) and isinstance(fspath(path), str)
    if not is_path or not str(path).strip() or "\0" in str(path):
        raise ConfigurationError("journal must be a file's path, or None to keep it in memory.")
    return Path(path)


def _lease(_: object, __: object, value: Any) -> None:
    if value is not None and not all(hasattr(value, name) for name in _LEASE):
        raise ConfigurationError(
            "lease must be an async context manager with an event named lost, such as RedisLease."
        )


def _rows(_: object, __: object, value: Any) -> None:
    require_rows(value)


@frozen(kw_only=True)
class InviteOptions:
    """The invitation that every row of a job gets."""

    interview_id: str = field(validator=_text)
    delivery_types: tuple[str, ...] = field(converter=_delivery)
    expiry_days: int | None = field(validator=optional(_COUNT))
    external_redirect_uri: str | None = field(validator=_optional_text)
    on_existing: str = field(validator=Choice(_RULES))
    in_flight_timeout: float = field(validator=_SECONDS)
    """Seconds, after it was given up, in which a lost request may still be carried out."""

    @property
    def terms(self) -> tuple[object, ...]:
        """What the server may refuse a row for, or this job by its rule for existing people."""
        types = tuple(sorted(self.delivery_types))
        return types, self.expiry_days, self.external_redirect_uri, self.on_existing

    @property
    def needs_opt_in(self) -> bool:
        """Whether only people who agreed to text messages can be invited.

        Source: /guides/sending-invites
        """
        return "sms" in self.delivery_types


@frozen(kw_only=True)
class JobLimits:
    """Limits of what a job does at once, and of how long it bears with what goes wrong."""

    concurrency: int = field(validator=_COUNT)
    max_consecutive_failures: int = field(validator=_COUNT)
    """Failures in a row that stop the job."""
    grace: float = field(validator=_SECONDS)
    """Seconds that requests on the wire get to end when the job stops."""


@frozen(kw_only=True)
class Settings:
    """Settings of a job, as the caller gave them."""

    candidates: CandidateSource = field(validator=_rows)
    invitation: InviteOptions
    journal: Path | None = field(converter=_journal)
    limits: JobLimits
    on_progress: Callable[[InviteProgress], object] | None
    is_dry: bool
    total: int | None = field(validator=optional(Number(least=0, whole=True)))
    keeps_candidates: bool
    retry_failed: bool
    """Whether rows that the server refused in an earlier run are tried again."""
    other_key: bool
    """Whether a journal that was begun with another API key is gone on with."""
    lease: JobLease | None = field(validator=_lease)
