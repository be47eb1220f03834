"""What a client is told, checked before anything is opened."""

import os
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gather_async.errors import ConfigurationError
from gather_async.phone import PhonePolicy
from gather_async.protocol.windows import RateLimit
from gather_async.quota.limiter import Priority
from gather_async.unset import UNSET, Unset

__all__ = [
    "DOCUMENTED_RATE_LIMITS",
    "Defaults",
    "checked_key",
    "checked_priority",
    "checked_wait",
    "given",
]

# Source: /getting-started/rate-limits
DOCUMENTED_RATE_LIMITS = (RateLimit(100, per=60), RateLimit(1000, per=3600))


@frozen(kw_only=True)
class Defaults:
    """What the calls of a client start from."""

    phone_policy: PhonePolicy
    default_region: str | None
    user_id: str | None


def checked_key(api_key: str | None) -> str:
    """Return the key, or ``GATHER_API_KEY``, unchanged. Source: /getting-started/authentication.

    Raises:
        ConfigurationError: It is missing, blank, or can't be sent in a header.
    """
    key = os.environ.get("GATHER_API_KEY", "") if api_key is None else api_key
    if not isinstance(key, str) or not key.strip():
        raise ConfigurationError("There is no API key: pass api_key or set GATHER_API_KEY.")
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise ConfigurationError(
            "The API key has spaces around it, a line break or a character that no key has."
        )
    return key


def checked_wait(max_wait: float | Unset | None) -> float | Unset | None:
    """Return ``max_wait`` as given.

    Raises:
        ConfigurationError: It is not a number of seconds, 0 or more.
    """
    if max_wait is None or max_wait is UNSET:
        return max_wait
    if isinstance(max_wait, bool) or not isinstance(max_wait, int | float) or not max_wait >= 0:
        raise ConfigurationError("max_wait must be seconds, 0 or more, or None.")
    return max_wait


def checked_priority(priority: Priority | Unset) -> Priority | Unset:
    """Return ``priority`` as given.

    Raises:
        ConfigurationError: There is no such priority.
    """
    if priority is not UNSET and priority not in {"interactive", "bulk"}:
        raise ConfigurationError('priority must be "interactive" or "bulk".')
    return priority


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that are not UNSET."""
    return {name: value for name, value in options.items() if value is not UNSET}
