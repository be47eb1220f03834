"""The webhook secret of a command."""

import argparse
import os

from gather_async.errors import ConfigurationError

__all__ = ["add_secret", "secret_of"]


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
