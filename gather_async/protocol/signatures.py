"""Signatures of webhook bytes; the time is a parameter.

The header is ``X-Qualifi-Signature: t=<timestamp>,v1=<signature>``; the
signature is the HMAC-SHA256, in hex, of the timestamp as given, a full stop and
the payload. Source: /api-reference/webhooks
"""

import contextlib
import hmac
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import frozen

from gather_async.errors import ConfigurationError, WebhookFailure, WebhookVerificationError
from gather_async.protocol.javascript import reserialize, reserialize_quickly
from gather_async.validators import Number, revealed

__all__ = [
    "Headers",
    "SIGNATURE_HEADER",
    "SignatureHeader",
    "VerifiedPayload",
    "bytes_of",
    "read_header",
    "read_instant",
    "sign",
    "signature_in",
    "validate_secrets",
    "validate_tolerance",
    "verify",
    "verify_sent",
    "verify_stringified",
]

SIGNATURE_HEADER: Final = "x-qualifi-signature"
Headers = Mapping[Any, Any] | Iterable[tuple[Any, Any]] | None
_LONGEST_HEADER = 4096
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?\Z")
_ISO = re.compile(r"[0-9][0-9TtWzZ:.+ -]{7,40}\Z")
# As seconds, the year 5138; as milliseconds, 1973.
_FIRST_MILLISECOND = 1e11


@frozen
class VerifiedPayload:
    """The payload that a valid signature vouches for."""

    text: str
    """The JSON text that was signed; not always the text that was sent."""
    sent_at: float
    """The signature's timestamp, in Unix seconds."""
    position: int = 0
    """Which of the secrets fits."""


@frozen
class SignatureHeader:
    """A signature header whose timestamp is fresh."""

    timestamp: str
    """As it was signed."""
    signatures: tuple[bytes, ...]
    sent_at: float
    """The timestamp in Unix seconds."""


def sign(body: bytes, *, secret: str, timestamp: str) -> str:
    """Return the signature header's value for a body.

    Args:
        body: The bytes that will be sent.
        secret: The webhook's secret.
        timestamp: As it goes into the header: no comma, no spaces around it.
    """
    signature = _signature(timestamp, body, secret).decode()
    return f"t={timestamp},v1={signature}"


def verify(
    body: Any, header: Any, *, secrets: Sequence[str], tolerance: float, now: float
) -> VerifiedPayload:
    """Return what was signed, if the signature is valid and fresh.

    The bytes count as they are; if their signature doesn't match, then as
    JavaScript would write them after parsing, because the vendor's samples sign
    that. Source: /guides/handling-webhooks

    Args:
        body: The body's bytes, as received.
        header: The header's value; bytes are tolerated.
        secrets: One of them must fit; from `validate_secrets`.
        tolerance: Seconds that the timestamp may differ from ``now``, either way.
        now: Unix seconds.

    Raises:
        WebhookVerificationError: It is not valid; ``reason`` says which check failed.
            Nothing else is raised, whatever body and header are.
    """
    raw = bytes_of(body)
    parts = read_header(header, tolerance=tolerance, now=now)
    found = verify_sent(raw, parts, secrets) or verify_stringified(raw, parts, secrets)
    assert found is not None  # noqa: S101 - only quick verification leaves it open
    return found


def signature_in(headers: Headers) -> str | None:
    """Return the signature header's value, None if there is none; several are joined.

    Names are compared without regard to case; text, bytes and lists of them are fine, and so
    is anything with ``items``: the standard library's messages are no mappings. What holds no
    pairs holds no header.
    """
    items = getattr(headers, "items", None)
    pairs: Any = items() if callable(items) else headers or ()
    try:
        values = [
            _text_of(value) for name, value in pairs if _text_of(name).lower() == SIGNATURE_HEADER
        ]
    except (TypeError, ValueError):
        return None
    return ",".join(values) if values else None


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ",".join(map(_text_of, value))
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def read_header(header: Any, *, tolerance: float, now: float) -> SignatureHeader:
    """Return a header's timestamp and signatures, if it is fresh: what costs no hashing.

    Raises:
        WebhookVerificationError: It is missing, malformed, too old or from the future.
    """
    timestamp, encoded = _split_header(header)
    sent_at = _read_timestamp(timestamp)
    _check_age(sent_at, tolerance, now)
    return SignatureHeader(timestamp, encoded, sent_at)


def verify_sent(
    raw: bytes, header: SignatureHeader, secrets: Sequence[str]
) -> VerifiedPayload | None:
    """Return the payload if the bytes were signed as they are; one hash for each secret.

    Raises:
        WebhookVerificationError: They were signed, but are not UTF-8.
    """
    position = _fitting(header, raw, secrets)
    return None if position is None else VerifiedPayload(_decode(raw), header.sent_at, position)


def verify_stringified(
    raw: bytes, header: SignatureHeader, secrets: Sequence[str], *, is_quick_only: bool = False
) -> VerifiedPayload | None:
    """Return the payload if the bytes were signed as JavaScript would write them.

    Args:
        raw: The body's bytes.
        header: The header's parts.
        secrets: One of them must fit.
        is_quick_only: Whether to return None where the long way, 0.1 s a megabyte, is needed.

    Raises:
        WebhookVerificationError: They were not signed in that way, either.
    """
    text = None
    with contextlib.suppress(ValueError, RecursionError):
        sent = raw.decode()
        text = reserialize_quickly(sent)
        if text is None and is_quick_only:
            return None
        text = reserialize(sent) if text is None else text
    position = None if text is None else _fitting(header, text.encode(), secrets)
    if text is None or position is None:
        raise WebhookVerificationError(
            "No signature matches: compare the webhook's secret, and pass the body's bytes as "
            "they came, before any parsing.",
            reason=WebhookFailure.SIGNATURE_MISMATCH,
        )
    return VerifiedPayload(text, header.sent_at, position)


def bytes_of(body: Any) -> bytes:
    """Return a body's bytes.

    Raises:
        WebhookVerificationError: It is neither bytes nor text.
    """
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    raise WebhookVerificationError(
        "The body must be the bytes as they came, not something parsed from them.",
        reason=WebhookFailure.MALFORMED_BODY,
    )


def validate_secrets(secret: Any, *, name: str = "The webhook secret") -> tuple[str, ...]:
    """Return the secrets of a setting: one, or several while one replaces the other.

    Args:
        secret: Text, bytes or an object with ``get_secret_value()``, such as pydantic's
            ``SecretStr``; or several of them.
        name: What the message calls it.

    Raises:
        ConfigurationError: There is none, it is of another type, blank (anyone could sign
            with it), or has a line break, as what is read from a file often has.
    """
    is_one = isinstance(secret, str | bytes) or hasattr(secret, "get_secret_value")
    is_none = isinstance(secret, bytearray | memoryview | Mapping)  # iterable, and no secrets
    is_several = isinstance(secret, Iterable) and not is_one and not is_none
    secrets = tuple(_secret_text(each, name) for each in (secret if is_several else (secret,)))
    if not secrets:
        raise ConfigurationError(f"{name} is missing: pass the one that was set up with the URL.")
    return secrets


def _secret_text(secret: Any, name: str) -> str:
    value = revealed(secret)
    if value is None:
        raise ConfigurationError(f"{name} is missing: pass the one that was set up with the URL.")
    if isinstance(value, bytes):
        raise ConfigurationError(f"{name} is bytes that are no UTF-8 text.")
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ConfigurationError(f"{name} must be str, bytes or a SecretStr, not {kind}.")
    if not value.strip():
        raise ConfigurationError(f"{name} is blank: pass the one that was set up with the URL.")
    if "\n" in value or "\r" in value:
        raise ConfigurationError(f"{name} has a line break in it: say .strip() to what you read.")
    return value


def validate_tolerance(tolerance: Any) -> float:
    """Return the tolerance, if it is one.

    Raises:
        ConfigurationError: It is no number, negative or NaN.
    """
    return float(Number(least=0, most=math.inf, unit="seconds").check("tolerance", tolerance))


def read_instant(value: str) -> float | None:
    """Return the Unix seconds that a text means: seconds, milliseconds or ISO 8601.

    ISO text without an offset is UTC. None if it is none of them.
    """
    if _NUMBER.match(value):
        number = float(value)
        return number / 1000 if number >= _FIRST_MILLISECOND else number
    if not _ISO.match(value):
        return None
    try:
        instant = datetime.fromisoformat(value.upper())
        aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        return aware.timestamp()
    except (ValueError, OverflowError):
        return None


def _signature(timestamp: str, payload: bytes, secret: str) -> bytes:
    message = b"%b.%b" % (timestamp.encode(), payload)
    key = secret.encode("utf-8", "surrogatepass")
    return hmac.digest(key, message, "sha256").hex().encode()


def _fitting(header: SignatureHeader, payload: bytes, secrets: Sequence[str]) -> int | None:
    """Return which secret fits, comparing all signatures of all in constant time."""
    found = None
    for position, secret in enumerate(secrets):
        expected = _signature(header.timestamp, payload, secret)
        for signature in header.signatures:
            # Bytes, because compare_digest raises on non-ASCII text.
            if hmac.compare_digest(expected, signature):
                found = position if found is None else found
    return found


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise WebhookVerificationError(
            "The body is signed, but is not UTF-8.", reason=WebhookFailure.MALFORMED_BODY
        ) from None


def _split_header(header: Any) -> tuple[str, tuple[bytes, ...]]:
    """Take a header apart by names, whatever their order, with spaces around anything."""
    if isinstance(header, bytes):
        header = header.decode("latin-1")
    if header is None or header == "":
        raise WebhookVerificationError(
            "There is no X-Qualifi-Signature header.", reason=WebhookFailure.MISSING_HEADER
        )
    if not isinstance(header, str) or len(header) > _LONGEST_HEADER:
        raise _malformed("it is no text of a sane length")
    parts = [part.partition("=") for part in header.split(",")]
    named = [(name.strip(" \t"), value.strip(" \t")) for name, _, value in parts]
    timestamps = {value for name, value in named if name == "t"}
    signatures = [value for name, value in named if name == "v1" and value]
    if len(timestamps) != 1:
        raise _malformed("it needs one t")
    if not signatures:
        raise _malformed("it needs a v1")
    encoded = tuple(value.encode("utf-8", "surrogatepass") for value in signatures)
    return timestamps.pop(), encoded


def _malformed(problem: str) -> WebhookVerificationError:
    return WebhookVerificationError(
        f"The signature header can't be read: {problem}. It looks like t=<timestamp>,v1=<hex>.",
        reason=WebhookFailure.MALFORMED_HEADER,
    )


def _read_timestamp(timestamp: str) -> float:
    sent_at = read_instant(timestamp)
    if sent_at is None or not math.isfinite(sent_at):
        raise WebhookVerificationError(
            "The signature's timestamp is neither Unix time nor ISO 8601.",
            reason=WebhookFailure.BAD_TIMESTAMP,
        )
    return sent_at


def _check_age(sent_at: float, tolerance: float, now: float) -> None:
    """Refuse what may be a replay, and what a wrong clock signed."""
    if now - sent_at > tolerance:
        raise WebhookVerificationError(
            "The signature is too old: a replay, or this machine's clock is ahead.",
            reason=WebhookFailure.TOO_OLD,
        )
    if sent_at - now > tolerance:
        raise WebhookVerificationError(
            "The signature is from the future: this machine's clock, or the sender's, is wrong.",
            reason=WebhookFailure.IN_THE_FUTURE,
        )
