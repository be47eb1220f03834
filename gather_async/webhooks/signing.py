"""`verify` and `sign`, at this machine's time."""

import hmac
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from inspect import isawaitable
from secrets import token_hex
from typing import Any, Final

from attrs import field, frozen

from gather_async.errors import ConfigurationError
from gather_async.protocol import signatures
from gather_async.validators import hide_arguments
from gather_async.webhooks.events import WebhookEvent, decode_event

__all__ = [
    "Finish",
    "Secrets",
    "SignedSample",
    "TENANT_PATH",
    "TenantSecret",
    "TenantSecrets",
    "UnknownTenantError",
    "fingerprint",
    "receiver_names",
    "sample",
    "sample_body",
    "sign",
    "tenant_in",
    "validate_token",
    "verify",
]

TENANT_PATH: Final = "/webhooks/gather"


@hide_arguments
def verify(
    body: bytes,
    signature_header: str | None,
    *,
    secret: str | Sequence[str],
    tolerance: float = 300.0,
) -> WebhookEvent:
    """Return the event of a delivery, if its signature is valid and fresh.

    Costs about 15 µs; a body that has to be written again as JavaScript would,
    about 0.1 s a megabyte. What is returned is what was signed.

    Args:
        body: The body's bytes as they came, before any parsing.
        signature_header: The value of ``X-Qualifi-Signature``; None if it is missing.
        secret: The webhook's secret, or several while one replaces the other.
        tolerance: Seconds that the signature's timestamp may differ from now, either
            way. A retry may carry its first timestamp, so 300 can refuse the last one.

    Raises:
        WebhookVerificationError: It can't be trusted, or is no event; ``reason`` says
            why. No body and no header raise anything else.
        ConfigurationError: The secret is blank, or the tolerance no number of seconds.

    Source: /api-reference/webhooks, /guides/handling-webhooks
    """
    signed = signatures.verify(
        body,
        signature_header,
        secrets=signatures.validate_secrets(secret),
        tolerance=signatures.validate_tolerance(tolerance),
        now=time.time(),
    )
    return decode_event(signed.text)


@hide_arguments
def sign(
    body: bytes | str,
    *,
    secret: str | Sequence[str],
    timestamp: float | str | datetime | None = None,
) -> str:
    """Return the value of ``X-Qualifi-Signature`` for a body: for tests and tools.

    >>> sign(b"{}", secret="s", timestamp=1)
    't=1,v1=33ab24ab6f7d10b15d0d3abdaf49a1d25bbd06f71b7a6bcb12bbd41d97fcec49'

    Args:
        body: What will be sent; text is encoded as UTF-8.
        secret: The webhook's secret; of several the first, the newest, signs.
        timestamp: Unix seconds, an aware datetime, or text that goes in as it is; None: now.

    Raises:
        ConfigurationError: The secret is blank, or the timestamp's text or zone can't work.
    """
    newest = signatures.validate_secrets(secret)[0]
    raw = body.encode() if isinstance(body, str) else bytes(body)
    return signatures.sign(raw, secret=newest, timestamp=_timestamp_text(timestamp))


def _timestamp_text(timestamp: float | str | datetime | None) -> str:
    if isinstance(timestamp, datetime):
        if timestamp.tzinfo is None:
            raise ConfigurationError("timestamp must be an aware datetime: give it a tzinfo.")
        timestamp = timestamp.timestamp()
    if isinstance(timestamp, str):
        if timestamp != timestamp.strip() or "," in timestamp or not timestamp.isascii():
            raise ConfigurationError("timestamp can't be in the header: no comma, no spaces.")
        return timestamp
    return str(int(time.time() if timestamp is None else timestamp))


@frozen
class SignedSample:
    """Parts of a delivery."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


def sample_body(
    event: str, *, data: Mapping[str, Any] | None = None, at: datetime | None = None
) -> bytes:
    """Return the body of a sample event, in compact JSON, as the sender's samples sign it.

    Only ``candidate_interview.completed`` has documented data; the data of the
    others is what its accessors look for, so don't take it for the API's word.

    Args:
        event: The event's name; any text goes.
        data: Instead of made-up data with new ids.
        at: When it happened, aware; None: now.
    """
    instant = (at or datetime.now(UTC)).astimezone(UTC)
    timestamp = instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {
        "event": event,
        "timestamp": timestamp,
        "data": _data(event, timestamp) if data is None else data,
    }
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def sample(
    event: str,
    *,
    secret: str,
    data: Mapping[str, Any] | None = None,
    at: datetime | None = None,
    tamper: bool = False,
    age: float = 0.0,
) -> SignedSample:
    """Return a signed delivery of a sample event.

    Args:
        event: The event's name.
        secret: The webhook's secret.
        data: Instead of made-up data with new ids.
        at: When it happened, and was signed, aware; None: now.
        tamper: Change the body after it was signed; a good endpoint answers 401.
        age: Seconds by which the signature is old; above the tolerance a good endpoint
            answers 401.

    Raises:
        ConfigurationError: The secret is blank.
    """
    at = at or datetime.now(UTC)
    body = sample_body(event, data=data, at=at)
    header = sign(body, secret=secret, timestamp=at.timestamp() - age)
    if tamper:
        body = body.replace(b"{", b'{"tampered":true,', 1)
    return SignedSample(body, {"content-type": "application/json", "x-qualifi-signature": header})


def _data(event: str, timestamp: str) -> dict[str, Any]:
    def new_id() -> str:
        return str(uuid.uuid4())

    if event.startswith("candidate_interview."):
        data = {
            "candidateInterviewId": new_id(),
            "candidateId": new_id(),
            "interviewId": new_id(),
            "status": "new_response",
        }
        return data | ({"takenAt": timestamp} if event.endswith(".completed") else {})
    if event.startswith("interview."):
        return {"interviewId": new_id()}
    return {"questionId": new_id()} if event.startswith("question.") else {}


TenantSecrets = Mapping[str, Any] | Callable[[str], Any]
"""The secret or secrets of each tenant, or a function, async or not, that returns them."""

Finish = Callable[[Awaitable[Any]], Awaitable[Any]]
"""Returns what is awaited, or cancels it and raises `TimeoutError` as the sender gives up."""


class UnknownTenantError(Exception):
    """There is no such tenant."""


@frozen
class TenantSecret:
    """A secret that a delivery may be signed with."""

    tenant: str | None
    secret: str = field(repr=False)
    is_known: bool = True


@frozen(repr=False)
class Secrets:
    """The secrets of a receiver: one tenant's, or those of many."""

    own: tuple[TenantSecret, ...] = ()
    """Those of the one tenant; none if there are many."""
    tenants: TenantSecrets | None = None
    path: str = TENANT_PATH

    @classmethod
    def of(cls, secret: Any, tenants: TenantSecrets | None, path: str) -> "Secrets":
        """Return the secrets of a receiver's settings.

        Raises:
            ConfigurationError: Both or neither are given, or a secret can't work.
        """
        if (secret is None) == (tenants is None):
            raise ConfigurationError(
                "A webhook receiver takes one secret, or secrets= by tenant: pass one of the two."
            )
        if isinstance(secret, Mapping):  # its keys, which are no secrets, would be taken for them
            raise ConfigurationError("A mapping holds the secrets of tenants: pass it as secrets=.")
        if tenants is None:
            own = signatures.validate_secrets(secret)
            return cls(tuple(TenantSecret(None, each) for each in own))
        if isinstance(tenants, Mapping):
            for tenant, each in tenants.items():
                if not isinstance(tenant, str) or not tenant.strip("/"):
                    raise ConfigurationError(
                        f"secrets has the tenant {tenant!r}: it must be text, as the end of a path."
                    )
                _of_tenant(tenant, each)
        elif not callable(tenants):
            raise ConfigurationError("secrets must be a mapping or a function of the tenant.")
        if not isinstance(path, str):
            raise ConfigurationError("tenant_path must be the path behind which the tenant stands.")
        return cls(tenants=tenants, path=path)

    async def find(
        self, tenant: str | None, path: str | None, finish: Finish
    ) -> Sequence[TenantSecret]:
        """Return the secrets of tenants that a delivery may be signed with, one at least.

        For an unknown tenant that is one that no signature fits, so that the answer
        takes as long as for a known one.

        Args:
            tenant: As the framework knows it.
            path: The request's.
            finish: Awaits what an async function returns, for as long as the sender does.

        Raises:
            UnknownTenantError: No tenant is named, and the secrets can't be listed.
            Exception: The function that returns secrets failed.
        """
        tenant = _below(tenant, self.path) or tenant_in(path, self.path)
        if tenant is not None:
            return await self._of(tenant, finish) or _UNKNOWN
        if not isinstance(self.tenants, Mapping):
            raise UnknownTenantError
        known = self.tenants.items()
        return [each for name, value in known for each in _of_tenant(name, value)] or _UNKNOWN

    async def _of(self, tenant: str, finish: Finish) -> Sequence[TenantSecret]:
        try:
            if isinstance(self.tenants, Mapping):
                found = self.tenants.get(tenant)
            else:
                found = self.tenants(tenant) if self.tenants is not None else None
                if isawaitable(found):
                    found = await finish(found)
        except LookupError:
            return ()
        return () if found is None else _of_tenant(tenant, found)

    def __repr__(self) -> str:
        return "<Secrets>"


# Of this process alone, so that it can't be signed with.
_UNKNOWN: Final = (TenantSecret(None, token_hex(32), is_known=False),)


def tenant_in(path: str | None, before: str) -> str | None:
    """Return the tenant that a path names behind another, or as its last part; None if none is.

    >>> tenant_in("/webhooks/gather/acme", "/webhooks/gather")
    'acme'
    >>> tenant_in("/webhooks/gather/", "/webhooks/gather") is None
    True
    """
    if not path:
        return None
    parts = f"/{path.strip('/')}"
    _, found, tail = parts.rpartition(f"/{before.strip('/')}")
    if found and (not tail or tail.startswith("/")):
        return tail.strip("/") or None
    return parts.rpartition("/")[2] or None


def _below(tenant: str | None, before: str) -> str | None:
    """Return a tenant without the path that a server with a root path leaves before it."""
    return f"/{tenant or ''}/".removeprefix(f"/{before.strip('/')}/").strip("/") or None


def _of_tenant(tenant: str, secret: Any) -> tuple[TenantSecret, ...]:
    name = f"The webhook secret of the tenant {tenant!r}"
    return tuple(
        TenantSecret(tenant, each) for each in signatures.validate_secrets(secret, name=name)
    )


def fingerprint(secret: str) -> str:
    """Return a name for a secret that says nothing about it."""
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), b"gather inbox", "sha256").hex()[
        :12
    ]


_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


def receiver_names(
    name: str | None, former_names: Collection[str], secrets: Secrets
) -> tuple[str, ...]:
    """Return a receiver's name, and those under which it may have stored events before.

    Files of the first version have no names; and each secret gives one.

    Raises:
        ConfigurationError: A name can't be part of an event's key.
    """
    if isinstance(former_names, str) or not isinstance(former_names, Collection):
        raise ConfigurationError("former_names must be a list of names.")
    for each in former_names if name is None else (name, *former_names):
        if not isinstance(each, str) or not _NAME.match(each):
            raise ConfigurationError("A name must be 1 to 64 letters, digits, dots, dashes or _.")
    names = [name] if name is not None else [fingerprint(each.secret) for each in secrets.own]
    if not names:
        # Receivers of one application, and so of one inbox, have paths of their own.
        path = secrets.path.strip("/")
        is_usual = path == TENANT_PATH.strip("/")
        names = ["tenants" if is_usual else f"tenants-{fingerprint(path)}"]
    return tuple(dict.fromkeys((*names, *former_names, "")))


_SHORTEST_TOKEN: Final = 32


def validate_token(token: str | None) -> str | None:
    """Return the end of the address that takes unsigned deliveries, if it can't be guessed.

    Raises:
        ConfigurationError: It is too short, or no single part of a path.
    """
    is_text = isinstance(token, str)
    if token is not None and (not is_text or len(token) < _SHORTEST_TOKEN or "/" in token):
        raise ConfigurationError(
            f"unsigned_token must have {_SHORTEST_TOKEN} characters at least and no slash: "
            "take secrets.token_urlsafe(32)."
        )
    return token
