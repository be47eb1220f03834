"""Fields and parameters that FakeGather accepts: the documented ones, and no others.

Refusing the undocumented keeps a client from drifting away from the contract.
Required fields are partly inferred; see each operation's rule.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from gather_async.testing.fake.messages import invalid
from gather_async.validators import is_whole

__all__ = [
    "BodyRule",
    "Check",
    "QueryRule",
    "boolean",
    "email",
    "list_of",
    "maybe_empty",
    "objects",
    "one_of",
    "phone",
    "positive",
    "text",
    "uri",
]

Check = Callable[[Any], str | None]
"""Returns why a JSON value is refused, or None."""

_E164 = re.compile(r"\+[1-9][0-9]{1,14}", re.ASCII)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+", re.ASCII)


def text(value: Any) -> str | None:
    """Any string that says something."""
    if not isinstance(value, str):
        return "must be a string"
    return None if value.strip() else "must not be empty"


def maybe_empty(value: Any) -> str | None:
    """Any string."""
    return None if isinstance(value, str) else "must be a string"


def email(value: Any) -> str | None:
    """An address with one @."""
    fits = isinstance(value, str) and _EMAIL.fullmatch(value)
    return None if fits else "must be an email address"


def phone(value: Any) -> str | None:
    """The shape of E.164. Source: /guides/best-practices."""
    fits = isinstance(value, str) and _E164.fullmatch(value)
    return None if fits else "must be in E.164 format, such as +12025550123"


def uri(value: Any) -> str | None:
    """A URI with a scheme and a host."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        parts = None
    return None if parts and parts.scheme and parts.netloc else "must be a URI"


def boolean(value: Any) -> str | None:
    """A boolean."""
    return None if isinstance(value, bool) else "must be a boolean"


def positive(value: Any) -> str | None:
    """A whole number from 1."""
    return None if is_whole(value) and value >= 1 else "must be an integer from 1"


def one_of(*words: str) -> Check:
    """One of the documented words."""

    def check(value: Any) -> str | None:
        return None if value in words else f"must be one of: {', '.join(words)}"

    return check


def list_of(item: Check, *, least: int = 0) -> Check:
    """A list whose items all pass."""

    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return "must be an array"
        if len(value) < least:
            return f"must hold at least {least} item"
        return next((f"item {reason}" for reason in map(item, value) if reason), None)

    return check


@frozen
class BodyRule:
    """The body of one operation.

    Attributes:
        fields: Each documented field and what it must be.
        required: Those that must be there.
    """

    fields: Mapping[str, Check]
    required: Collection[str] = ()

    def check(self, body: Any) -> dict[str, Any]:
        """Return the body, or refuse it by its first bad field."""
        if not isinstance(body, dict):
            raise invalid("body", "must be a JSON object")
        for name, reason in self.reasons(body):
            raise invalid(name, reason)
        return body

    def reasons(self, body: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Return what is wrong: field and reason."""
        wrong = [(name, "is required") for name in self.required if name not in body]
        for name, value in body.items():
            check = self.fields.get(name)
            reason = "is not a documented field" if check is None else check(value)
            if reason:
                wrong.append((name, reason))
        return wrong


def objects(rule: BodyRule, *, least: int = 0) -> Check:
    """A list of objects that all follow one rule."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return "must be an object"
        return next((f"{name} {reason}" for name, reason in rule.reasons(value)), None)

    return list_of(check, least=least)


@frozen
class QueryRule:
    """The query of one operation.

    Attributes:
        texts: Parameters taken as they are.
        words: Parameters with documented values.
        booleans: Parameters that are ``true`` or ``false``, with their default.
        size: Name of the page size's parameter; None for a list without pages.
        default_size: Page size without it.
        paged: Whether ``page`` is taken.
    """

    texts: Collection[str] = ()
    words: Mapping[str, Collection[str]] = field(factory=dict)
    booleans: Mapping[str, bool] = field(factory=dict)
    size: str | None = None
    default_size: int = 50
    paged: bool = False

    def check(self, query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return the parameters read, defaults filled in; page and size as ``page``, ``size``."""
        read: dict[str, Any] = dict(self.booleans)
        if self.paged:
            read["page"], read["size"] = 1, self.default_size
        for name, values in query.items():
            if len(values) > 1:
                raise invalid(name, "must be given once")
            key = "size" if name == self.size else name
            read[key] = self._read(name, values[0])
        return read

    def _read(self, name: str, value: str) -> Any:
        """Return one parameter's value."""
        if name in self.texts:
            return value
        if name in self.words:
            if value not in self.words[name]:
                raise invalid(name, f"must be one of: {', '.join(self.words[name])}")
            return value
        if name in self.booleans:
            if value not in {"true", "false"}:
                raise invalid(name, "must be true or false")
            return value == "true"
        if self.paged and name in {"page", self.size}:
            return _whole(name, value, most=100 if name == self.size else None)
        raise invalid(name, "is not a documented query parameter")


def _whole(name: str, value: str, *, most: int | None) -> int:
    """Return a whole number from 1. Source of 100: /api-reference/candidate-interviews."""
    number = int(value) if re.fullmatch("[0-9]{1,9}", value, re.ASCII) else 0
    if number < 1 or (most is not None and number > most):
        raise invalid(name, f"must be an integer from 1 to {most}" if most else "must be from 1")
    return number
