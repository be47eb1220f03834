"""An error as the journal keeps it: enough to act on, nothing personal."""

import json
from typing import Any

from gather_async import errors
from gather_async.errors import GatherAPIError, GatherError

__all__ = ["dump_error", "load_error"]

# The server's own words may repeat what it was sent: a name, an address, a number.
_PRIVATE = frozenset({"message", "details", "body", "headers"})
_EMPTY: dict[str, Any] = {"message": "", "details": {}, "body": "", "headers": {}}


def dump_error(error: GatherError) -> str:
    """Return JSON of the error's class, its safe message, and its plain attributes."""
    kept = {
        name: value
        for name, value in vars(error).items()
        if name not in _PRIVATE
        and not name.startswith("_")
        and isinstance(value, str | int | float | None)
    }
    return json.dumps({"type": type(error).__name__, "message": str(error), "attributes": kept})


def load_error(text: str) -> GatherError:
    """Return the error again; one of an unknown class comes back as a plain `GatherError`."""
    kept = json.loads(text)
    found = getattr(errors, kept["type"], GatherError)
    cls = found if isinstance(found, type) and issubclass(found, GatherError) else GatherError
    error = cls.__new__(cls, kept["message"])
    error.args = (kept["message"],)
    # What was left out is empty rather than absent, so that reading it never fails.
    absent = _EMPTY if issubclass(cls, GatherAPIError) else {"body": ""}
    vars(error).update({**absent, **kept["attributes"]})
    return error
