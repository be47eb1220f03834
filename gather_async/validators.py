"""Checks of the numbers, words, addresses and ids that a caller passes.

A boolean is an ``int`` to Python, NaN passes a comparison that is written the wrong way
round, and an ``int`` may be too large for a ``float``. Each is refused here.
"""

import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from attrs import Attribute, frozen

from gather_async.errors import (
    ConfigurationError,
    GatherError,
    InvalidEmailError,
    InvalidRequestError,
)

__all__ = [
    "Choice",
    "Instance",
    "Number",
    "Secret",
    "check_email",
    "hide_arguments",
    "id_tuple",
    "is_number",
    "is_whole",
    "make",
    "optional_id_tuple",
    "private_init",
    "revealed",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_M = TypeVar("_M")
_MOST = sys.float_info.max  # a larger int would overflow in the arithmetic


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number, not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Return whether a value is a number, not a boolean. Infinity and NaN are numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Rule(ABC):
    """Rule for a value; as it is, the attrs validator of a field."""

    __slots__ = ()
    owner: str

    @abstractmethod
    def check(self, name: str, value: Any) -> Any:
        """Raise unless the value keeps the rule."""

    def __call__(self, _: object, field: "Attribute[Any]", value: Any) -> None:
        """Check the value of a field of attrs."""
        self.check(f"{self.owner}.{field.name}" if self.owner else field.name, value)


@frozen(kw_only=True)
class Number(_Rule):
    """A range of numbers; as it is, the attrs validator of a field.

    >>> Number(least=1, whole=True).check("attempts", 0)
    Traceback (most recent call last):
        ...
    gather_async.errors.ConfigurationError: attempts must be a whole number, 1 or more.
    """

    above: float | None = None
    """What a value must exceed; None: any."""
    least: float | None = None
    """What a value must reach; None: any."""
    most: float | None = None
    """What a value must not exceed; ``inf`` lets infinity pass, None what a float holds."""
    whole: bool = False
    """Whether only whole numbers fit."""
    unit: str = "a number"
    """What a message calls the value."""
    owner: str = ""
    """The class of the field, where a message must name it."""
    optional: bool = False
    """Whether None fits, too."""

    def check(
        self, name: str, value: Any, *, accepts: str = "", error: type[GatherError] | None = None
    ) -> Any:
        """Return the value as given.

        Args:
            name: The parameter, as a message names it.
            value: What the caller passed.
            accepts: What else the parameter takes, for the end of the message.
            error: The class of the error; None: `ConfigurationError`.

        Raises:
            GatherError: It is no number, or out of range: an ``error``.
        """
        if not self._holds(value):
            message = f"{name} must be {self}{accepts and f', {accepts}'}."
            raise (error or ConfigurationError)(message)
        return value

    def __str__(self) -> str:
        words = ["a whole number" if self.whole else self.unit]
        words += [] if self.above is None else [f"above {self.above:g}"]
        words += [] if self.least is None else [f"{self.least:g} or more"]
        words += [] if self.most in {None, math.inf} else [f"at most {self.most:g}"]
        words += ["finite"] if self.most is None and not self.whole else []
        words += ["or None"] if self.optional else []
        return ", ".join(words)

    def _holds(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if not (is_whole(value) if self.whole else is_number(value)):
            return False
        if not value <= (_MOST if self.most is None else self.most):
            return False
        if is_whole(value) and value > _MOST:  # infinity passes; a number that large does not
            return False
        if self.above is not None and not value > self.above:
            return False
        return self.least is None or bool(value >= self.least)


@frozen
class Choice(_Rule):
    """A few values; as it is, the attrs validator of a field.

    >>> Choice(("burst", "even")).check("pace", "fast")
    Traceback (most recent call last):
        ...
    gather_async.errors.ConfigurationError: pace must be "burst" or "even".
    """

    values: tuple[Any, ...]
    owner: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raise unless the value is one of these.

        Raises:
            ConfigurationError: It is none of them.
        """
        if value not in self.values:
            raise ConfigurationError(f"{name} must be {self}.")

    def __str__(self) -> str:
        *first, last = (f'"{one}"' if isinstance(one, str) else repr(one) for one in self.values)
        return f"{', '.join(first)} or {last}"


@frozen
class Instance(_Rule):
    """The instances of a class; as it is, the attrs validator of a field.

    >>> Instance(bytes, "text has to be encoded").check("body", "text")
    Traceback (most recent call last):
        ...
    gather_async.errors.ConfigurationError: body must be a bytes; text has to be encoded.
    """

    kind: type[Any]
    advice: str = ""
    """What a message says to do instead."""
    owner: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raise unless the value is one.

        Raises:
            ConfigurationError: It is something else.
        """
        if not isinstance(value, self.kind):
            advice = self.advice and f"; {self.advice}"
            raise ConfigurationError(f"{name} must be a {self.kind.__name__}{advice}.")


def hide_arguments(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function's errors come without its frames, whose locals are what it was given.

    Error reporters store the locals of frames; an email address or a phone number that was
    refused is in them.
    """

    @wraps(function)
    def hidden(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            problem = error.with_traceback(None)
        del args, kwargs
        raise problem

    return hidden


def private_init(model: type[_M]) -> type[_M]:
    """Let a class that is made of personal data hide the arguments it refuses; a decorator."""
    model.__init__ = hide_arguments(model.__init__)  # type: ignore[method-assign]
    return model


def make(model: Callable[[], _M]) -> _M:
    """Return what a caller's arguments make; the frames of a refusal show none of them.

    Raises:
        InvalidRequestError: They are not those that the model takes.
        GatherError: The model refused one of them.
    """
    try:
        return model()
    except TypeError as error:
        problem = str(error)
    except GatherError as refused:
        raise refused.with_traceback(None)  # noqa: B904 - the same error
    raise InvalidRequestError(f"{problem}.")


class Secret(Protocol):
    """Text that shows itself only when asked, such as pydantic's ``SecretStr``."""

    def get_secret_value(self) -> str:
        """Return the text."""
        ...


def revealed(secret: object) -> object:
    """Return the text of a secret given as text, bytes, or pydantic's ``SecretStr``.

    What is none of these, or no UTF-8, is returned as it is, for the caller to refuse.
    """
    reveal = getattr(secret, "get_secret_value", None)
    value = reveal() if callable(reveal) else secret
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value


# Deliberately loose: only what no mail server could take is refused.
_LABEL = r"[^@.\s\x00-\x1f\x7f<>()\[\],;:\\\"]+"
_EMAIL = re.compile(rf"{_LABEL}(?:\.{_LABEL})*@{_LABEL}(?:\.{_LABEL})+")
_LONGEST_EMAIL = 254  # RFC 5321, section 4.5.3.1.3


def check_email(raw: str) -> str:
    """Return the address unchanged if it can be one.

    Raises:
        InvalidEmailError: It has no ``local@domain.tld`` form, holds spaces, control
            characters or invisible ones, or is longer than 254 characters.
    """
    if (
        isinstance(raw, str)
        and len(raw) <= _LONGEST_EMAIL
        and raw.isprintable()
        and _EMAIL.fullmatch(raw)
    ):
        return raw
    raise InvalidEmailError(
        "This is not an email address: give one address as local@domain.tld, "
        "with no spaces and no display name."
    )


def id_tuple(ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ids as a tuple.

    Raises:
        InvalidRequestError: They are one text, which would be taken for a list of letters.
    """
    if isinstance(ids, str):
        raise InvalidRequestError("Ids go in a list, such as [team.id], not in one text.")
    return tuple(ids)


def optional_id_tuple(ids: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the ids as a tuple, or None."""
    return None if ids is None else id_tuple(ids)
