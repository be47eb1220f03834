"""The exit status of every command."""

from enum import IntEnum

__all__ = ["ExitStatus"]


class ExitStatus(IntEnum):
    """The exit status of every command."""

    OK = 0
    FAILURE = 1
    """It failed, or a part of it did."""
    USAGE = 2
    """The command can't be run as it was written."""
    AUTHENTICATION = 3
    """The API key is missing or not accepted."""
    INTERRUPTED = 130
    """Ctrl-C; 128 and SIGINT's number, as shells have it."""
