"""Validation of a client's options, before anything is opened."""

import math
import os
import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from attrs import field, frozen
from attrs.converters import optional

from gather_async.errors import ConfigurationError
from gather_async.phone import PhonePolicy, known_region
from gather_async.protocol.retry import RetryPolicy
from gather_async.quota.priority_queue import PRIORITY, Priority
from gather_async.session import Options
from gather_async.transport import ClientTimeout, HTTPSession, client_timeout
from gather_async.validators import Instance, Number, revealed

__all__ = [
    "DEFAULT_RETRY",
    "DEFAULT_TIMEOUT",
    "PRODUCTION",
    "STAGING",
    "ViewOptions",
    "default_base_url",
    "default_user_id",
    "proxy_for",
    "validate_base_url",
    "validate_key",
    "validate_lent",
    "validate_session",
]

_PLAIN = re.compile(r"[!-\[\]-~]+")
PRODUCTION = "https://api.prod.qualifi.hr"
"""The server unless another is named. Source: /getting-started/overview"""
STAGING = "https://api.dev.qualifi.hr"
"""The server for trying things out, with keys and data of its own; treat its messages as
really sent. Source: /getting-started/overview"""
DEFAULT_TIMEOUT = 30.0
"""Seconds for each attempt of a call."""
DEFAULT_RETRY = RetryPolicy()
"""The rules by which failed requests are tried again."""


def default_base_url() -> str:
    """Return ``GATHER_BASE_URL``, else the production server."""
    return os.environ.get("GATHER_BASE_URL") or PRODUCTION


def validate_base_url(raw: str, *, allow_insecure: bool = False) -> str:
    """Return the base URL without its trailing slash.

    Args:
        raw: Scheme, host, and maybe a port and a path that goes before every request's.
        allow_insecure: Whether the key may travel in the clear to another machine.

    Raises:
        ConfigurationError: It isn't an ``https://`` URL (``http://`` is fine for
            loopback), or it has credentials, a query or a fragment.
    """
    try:
        url = urlsplit(raw)
        host = url.hostname
        url.port  # noqa: B018 - it is checked when it is read
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError("base_url is not a URL.") from None
    if url.scheme not in {"http", "https"} or not host or not _PLAIN.fullmatch(raw):
        raise ConfigurationError(
            "base_url must start with https:// (or, on loopback, http://) and name a host, in "
            "ASCII without spaces or backslashes; an international name goes in its xn-- form."
            f"{_missing_scheme(raw)}"
        )
    if url.query or url.fragment or "?" in raw or "#" in raw:
        raise ConfigurationError("base_url can't have a query or a fragment.")
    if "@" in url.netloc:
        raise ConfigurationError("base_url can't hold credentials: pass api_key instead.")
    if url.scheme == "http" and not allow_insecure and not _is_loopback(host):
        raise ConfigurationError(
            "base_url must be https://, so that the API key doesn't travel in the clear; "
            "allow_insecure=True lifts this."
        )
    return raw.rstrip("/")


def proxy_for(base_url: str, *, trust_env: bool, lent: HTTPSession | None) -> str | None:
    """Return the proxy that the environment names for a server; None if there is none.

    aiohttp's own ``trust_env`` would ask a thread for it with each request, and send what
    ``.netrc`` says of the host. A request to an ``http://`` server would show the key to
    its proxy, so it goes through none, and neither does one to loopback.

    Raises:
        ConfigurationError: The session that was lent would send the key in the clear to a
            proxy, or the proxy is of a kind that can't be used.
    """
    url = urlsplit(base_url)
    host, proxies = url.hostname or "", getproxies()
    bypasses = proxy_bypass(url.netloc) or proxy_bypass(host)
    if lent is not None:
        if url.scheme == "http" and lent.trust_env and proxies.get("http") and not bypasses:
            raise ConfigurationError(
                "The aiohttp session that was lent would send the API key in the clear to the "
                "environment's proxy: add the host to NO_PROXY, or make it without trust_env."
            )
        return None
    proxy = proxies.get("https") or proxies.get("all")
    if not trust_env or url.scheme == "http" or bypasses or _is_loopback(host) or not proxy:
        return None
    if urlsplit(proxy).scheme not in {"http", "https"}:
        raise ConfigurationError(
            "HTTPS_PROXY must be an http:// or https:// URL: other proxies are not supported."
        )
    return proxy


# They describe one request, or the body of one. As defaults of a session they would fit none.
_OF_ONE_REQUEST = frozenset(
    {
        *("Content-Encoding", "Content-Length", "Expect", "Range", "Transfer-Encoding"),
        *("If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since"),
    }
)


def validate_lent(limiter: object, signals: object) -> None:
    """Check what a client uses together with others.

    Raises:
        ConfigurationError: It is something else, such as a URL or a class; the message says what.
    """
    for name, value, does in (("limiter", limiter, "acquire"), ("signals", signals, "subscribe")):
        if value is not None and (isinstance(value, type) or not hasattr(value, does)):
            kind = "a class" if isinstance(value, type) else type(value).__name__
            raise ConfigurationError(f"{name} must be an object with {does}(), not {kind}.")


def validate_session(session: HTTPSession | None) -> HTTPSession | None:
    """Return a lent session, if what it sends by default suits any request.

    Raises:
        ConfigurationError: It would send headers of some other request; the message names them;
            or it is no session.
    """
    if session is not None and (isinstance(session, type) or not hasattr(session, "headers")):
        raise ConfigurationError("session must be an aiohttp.ClientSession, made beforehand.")
    headers = () if session is None else session.headers
    if unfit := sorted(name for name in _OF_ONE_REQUEST if name in headers):
        raise ConfigurationError(
            f"The aiohttp session that was lent sends {', '.join(unfit)} with every request: "
            "lend one without such default headers."
        )
    return session


def _missing_scheme(raw: str) -> str:
    """Return the advice for an address that lacks a scheme alone; it isn't repeated."""
    if not isinstance(raw, str) or "://" in raw or not _PLAIN.fullmatch(raw):
        return ""
    try:
        url = urlsplit(f"//{raw}")
        host, _ = url.hostname or "", url.port
    except ValueError:
        return ""
    if _is_loopback(host):
        return " Put http:// before it."
    return " Put https:// before it." if "." in host else ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@frozen(kw_only=True)
class ViewOptions(Options):
    """Options of a client, or of a view of it, as the caller gave them."""

    timeout: ClientTimeout = field(converter=client_timeout)
    retry: RetryPolicy = field(validator=Instance(RetryPolicy, "attempts=1 switches it off"))
    priority: Priority = field(default="interactive", validator=PRIORITY)
    max_wait: float | None = field(
        validator=Number(least=0, most=math.inf, unit="seconds", optional=True)
    )
    phone_policy: PhonePolicy = field(validator=Instance(PhonePolicy))
    default_region: str | None = field(converter=optional(known_region))
    user_id: str | None


def validate_key(api_key: Any) -> str:
    """Return the key, or ``GATHER_API_KEY``, as text. Source: /getting-started/authentication.

    Raises:
        ConfigurationError: It is missing, blank, or can't be sent in a header.
    """
    key = os.environ.get("GATHER_API_KEY", "") if api_key is None else revealed(api_key)
    if not isinstance(key, str):
        kind = type(key).__name__
        raise ConfigurationError(f"api_key must be text, bytes or a SecretStr, not {kind}.")
    if not key.strip():
        raise ConfigurationError("There is no API key: pass api_key or set GATHER_API_KEY.")
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise ConfigurationError(
            "The API key has spaces around it, a line break or a character that no key has."
        )
    return key


def default_user_id() -> str | None:
    """Return ``GATHER_USER_ID``; None if it is unset or blank."""
    return os.environ.get("GATHER_USER_ID", "").strip() or None
