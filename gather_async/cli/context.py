"""The client of a command: its key and server come from the environment."""

import argparse
import os
from typing import Any

from gather_async.cli.output import ExitStatus
from gather_async.client import GatherClient
from gather_async.errors import (
    AuthenticationError,
    ConfigurationError,
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    PermissionDeniedError,
)

__all__ = [
    "MissingKeyError",
    "add_secret",
    "connect",
    "format_error",
    "has_key",
    "secret_of",
    "status_of",
]


def add_secret(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the secret."""
    parser.add_argument(
        "--secret",
        metavar="SECRET",
        help="the webhook secret; better kept in GATHER_WEBHOOK_SECRET,"
        " as other users of the machine can read arguments",
    )


def secret_of(options: argparse.Namespace) -> str:
    """Return the secret of the option or the environment.

    Raises:
        ConfigurationError: There is none.
    """
    secret = options.secret or os.environ.get("GATHER_WEBHOOK_SECRET", "")
    if not secret.strip():
        raise ConfigurationError("There is no secret: set GATHER_WEBHOOK_SECRET or pass --secret.")
    return str(secret)


class MissingKeyError(ConfigurationError):
    """There is no API key in the environment."""


def format_error(error: GatherError) -> str:
    """Return what happened and what to do, with the id that the vendor's support asks for."""
    lines = [str(error), *getattr(error, "__notes__", ())]
    if isinstance(error, GatherAPIError) and error.request_id:
        lines.append(f"For the vendor's support: request id {error.request_id}.")
    return "\n".join(lines)


def status_of(error: GatherError) -> ExitStatus:
    """Return the exit status of a kind of error, for scripts."""
    match error:
        case AuthenticationError() | PermissionDeniedError() | MissingKeyError():
            return ExitStatus.AUTHENTICATION
        case ConfigurationError() | InvalidRequestError():
            return ExitStatus.USAGE
        case _:
            return ExitStatus.FAILURE


def has_key() -> bool:
    """Return whether the environment has an API key."""
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
