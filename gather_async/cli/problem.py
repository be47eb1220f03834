"""From an error to a line for a person and an exit status for a shell."""

from gather_async.cli.exit_status import ExitStatus
from gather_async.errors import (
    AuthenticationError,
    ConfigurationError,
    GatherAPIError,
    GatherError,
    InvalidRequestError,
    PermissionDeniedError,
)

__all__ = ["MissingKeyError", "explain", "status_of"]


class MissingKeyError(ConfigurationError):
    """There is no API key in the environment."""


def explain(error: GatherError) -> str:
    """Return what happened and what to do, with the id that the vendor's support asks for."""
    lines = [str(error), *getattr(error, "__notes__", ())]
    if isinstance(error, GatherAPIError) and error.request_id:
        lines.append(f"For the vendor's support: request id {error.request_id}.")
    return "\n".join(lines)


def status_of(error: GatherError) -> ExitStatus:
    """Return the exit status that tells a script what kind of error it was."""
    match error:
        case AuthenticationError() | PermissionDeniedError() | MissingKeyError():
            return ExitStatus.AUTHENTICATION
        case ConfigurationError() | InvalidRequestError():
            return ExitStatus.USAGE
        case _:
            return ExitStatus.FAILURE
