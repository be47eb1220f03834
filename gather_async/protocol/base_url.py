"""Where requests go, checked once. Source: /guides/best-practices (HTTPS only)."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from gather_async.errors import ConfigurationError

__all__ = ["PRODUCTION", "check_base_url"]

_PLAIN = re.compile(r"[!-\[\]-~]+")
PRODUCTION = "https://api.prod.qualifi.hr"  # Source: /getting-started/overview


def check_base_url(raw: str, *, allow_insecure: bool = False) -> str:
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
            "base_url must start with https:// and name a host, in ASCII without spaces or "
            "backslashes; an international name goes in its xn-- form."
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


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
