"""The client of a command: its key and server come from the environment."""

import os
from typing import Any

from gather_async.cli.problem import MissingKeyError
from gather_async.client import GatherClient

__all__ = ["connect", "has_key"]


def has_key() -> bool:
    """Tell whether the environment has an API key."""
    return bool(os.environ.get("GATHER_API_KEY", "").strip())


def connect(**options: Any) -> GatherClient:
    """Return a client for the key in the environment.

    The key is never taken from the command line, where other users of the
    machine and the shell's history could read it.

    Raises:
        MissingKeyError: There is none.
        ConfigurationError: The key or ``GATHER_BASE_URL`` can't be used.
    """
    if not has_key():
        raise MissingKeyError(
            "There is no API key: set GATHER_API_KEY. To try things out without one,"
            " run `gather-async fake-server`."
        )
    return GatherClient(**options)
