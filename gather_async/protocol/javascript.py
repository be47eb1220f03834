"""JSON as JavaScript reads and writes it: ``JSON.stringify(JSON.parse(text))``.

The vendor's samples sign a body that was parsed and written again, so what they
sign can differ from what they send. Source: /guides/handling-webhooks
"""

import json
import math
import re
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, Final

__all__ = ["MAX_DEPTH", "number_text", "parse", "reserialize", "reserialize_quickly"]

MAX_DEPTH: Final = 200
"""Levels of nesting that are read; events have four or so."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ARRAY_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,9})\Z")
_LARGEST_INDEX = 2**32 - 2
_SAFE_INTEGER = 2**53
_SAFE_DIGITS = 17
# Between these both languages write a double without an exponent, in its shortest digits.
_SMALLEST_PLAIN = 1e-4
_LARGEST_PLAIN = 1e16
# Keys that JavaScript may put first, and surrogates, which it may escape.
_ODD_TEXT = re.compile(
    r'"(?:[0-9]|\\u00[0-9a-fA-F]{2})[^"]*"\s*:|\\u[dD][89a-fA-F]|[\ud800-\udfff]'
)
_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
# Longer than any double; Python refuses to convert 4300 digits, and is slow before that.
_LONGEST_INTEGER = 400


def parse(text: str) -> Any:
    """Return what JSON text means, in Python's types.

    Raises:
        ValueError: It is no JSON (NaN and Infinity aren't), is nested deeper than
            `MAX_DEPTH`, or has an integer too long to be meant.
    """
    return _load(text, parse_int=_to_int, object_pairs_hook=None)


def reserialize(text: str) -> str:
    r"""Return JSON text as ``JSON.stringify(JSON.parse(text))`` would.

    Compact, non-ASCII unescaped, lone surrogates escaped, numbers as doubles in
    JavaScript's form, the last of repeated keys at the place of the first, keys
    that look like array indices ahead of the others in ascending order.

    >>> reserialize('{"b": 4.0, "1": 1e21, "a": "\u00e9"}')
    '{"1":1e+21,"b":4,"a":"é"}'

    Raises:
        ValueError: As for `parse`.
    """
    value = _load(text, parse_int=float, object_pairs_hook=_in_javascript_order)
    return _write(value)


def reserialize_quickly(text: str) -> str | None:
    """Return what `reserialize` would, twice as fast; None where Python writes otherwise.

    Raises:
        ValueError: As for `parse`.
    """
    if _ODD_TEXT.search(text) is not None:
        return None
    try:
        value = _load(text, parse_int=_same_int, parse_float=_same_float, object_pairs_hook=None)
    except _OddNumberError:
        return None
    return _encode(value)


class _OddNumberError(Exception):
    """A number that JavaScript writes in another way than Python."""


def _same_int(digits: str) -> int:
    number = int(digits) if len(digits) <= _SAFE_DIGITS else _SAFE_INTEGER
    if abs(number) >= _SAFE_INTEGER:
        raise _OddNumberError
    return number


def _same_float(digits: str) -> float | int:
    number = float(digits)
    if abs(number) < _SAFE_INTEGER and number == int(number):
        return int(number)
    if not _SMALLEST_PLAIN <= abs(number) < _LARGEST_PLAIN:
        raise _OddNumberError
    return number


def number_text(value: float) -> str:
    """Return a number as ``JSON.stringify`` writes it: ECMAScript's Number::toString.

    >>> [number_text(x) for x in (4.0, -0.0, 1e-7, 1e21, 123456789012345680000.0)]
    ['4', '0', '1e-7', '1e+21', '123456789012345680000']
    """
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    if abs(value) < _SAFE_INTEGER and value == int(value):
        return str(int(value))
    sign = "-" if value < 0 else ""
    digits, point = _decimal(abs(value))
    return sign + _placed(digits, point)


def _load(
    text: str,
    *,
    parse_int: Callable[[str], Any],
    parse_float: Callable[[str], Any] = float,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None,
) -> Any:
    try:
        value = json.loads(
            text,
            parse_int=parse_int,
            parse_float=parse_float,
            parse_constant=_refuse_constant,
            object_pairs_hook=object_pairs_hook,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Raise if a value is nested too deeply; without recursion of its own."""
    level, depth = [value], 0
    while level := [
        child
        for node in level
        if isinstance(node, dict | list)
        for child in (node.values() if isinstance(node, dict) else node)
        if isinstance(child, dict | list)
    ]:
        depth += 1
        if depth >= MAX_DEPTH:
            raise ValueError("nested too deeply")


def _to_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _in_javascript_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's properties in the order in which JavaScript lists them."""
    properties = dict(pairs)
    indices = [key for key in properties if _is_array_index(key)]
    if not indices:
        return properties
    ordered = {key: properties[key] for key in sorted(indices, key=int)}
    return ordered | properties


def _is_array_index(key: str) -> bool:
    return _ARRAY_INDEX.match(key) is not None and int(key) <= _LARGEST_INDEX


def _write(value: Any) -> str:
    """Return the JSON text of a parsed value; depth is bounded by `_load`."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{_quoted(k)}:{_write(v)}" for k, v in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_write(item) for item in value]) + "]"
    return {None: "null", True: "true", False: "false"}[value]


def _quoted(text: str) -> str:
    quoted = encode_basestring(text)
    if quoted.isascii():
        return quoted
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _decimal(value: float) -> tuple[str, int]:
    """Return the shortest digits that mean this number, and where the point is among them."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    return digits.rstrip("0"), point


def _placed(digits: str, point: int) -> str:
    """Write digits with their point as ECMAScript's Number::toString does."""
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    exponent = f"e{point - 1:+d}"
    return digits[0] + (f".{digits[1:]}" if count > 1 else "") + exponent
