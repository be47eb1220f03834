"""Check of a row of the source: which fields its columns mean, and whether its values can be."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

from attrs import evolve, frozen

from gather_async.errors import (
    ConfigurationError,
    GatherError,
    InvalidRequestError,
    InviteNotDeliverableError,
)
from gather_async.models.candidate import NewCandidate
from gather_async.phone import PhonePolicy, to_e164

__all__ = [
    "FIELDS",
    "FileRow",
    "REQUIRED",
    "Row",
    "RowCheck",
    "UnreadableRow",
    "field_of",
    "fields_by_name",
    "fields_of",
    "letters_of",
    "line_of",
    "require_columns",
    "validate_columns",
]

REQUIRED = ("first_name", "last_name", "email", "phone")
FIELDS = (*REQUIRED, "external_id", "timezone", "sms_opt_in")

_Named = tuple[str, str | None]
_BY_LETTERS = {name.replace("_", ""): name for name in FIELDS} | {
    "emailaddress": "email",
    "phonenumber": "phone",
}


def letters_of(name: str) -> str:
    """Return what of a column's name counts."""
    return "".join(filter(str.isalnum, name.casefold())) or name.strip()


@lru_cache(maxsize=256)
def field_of(name: str) -> str | None:
    """Return the field that a name means; None for a column that isn't ours.

    ``firstName``, ``first_name``, ``First Name`` and ``FIRST-NAME`` mean the
    same, as do ``email address`` for ``email`` and ``phone number`` for ``phone``.

    >>> field_of("SMS opt-in")
    'sms_opt_in'
    """
    return _BY_LETTERS.get(letters_of(name))


def fields_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row's values by our names of the fields; other keys are left out.

    Raises:
        InvalidRequestError: Two keys mean the same field, so that one would be lost.
    """
    values: dict[str, Any] = {}
    for key, value in row.items():
        name = field_of(key) if isinstance(key, str) else None
        if name is None:
            continue
        if name in values:
            raise InvalidRequestError(f"Two columns mean {name}: rename or remove one of them.")
        values[name] = value
    return values


def validate_columns(columns: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the fields that columns mean, by the columns' names; None: they are not read.

    Raises:
        ConfigurationError: They are none, or two mean the same.
    """
    if not isinstance(columns, Mapping) or not all(isinstance(name, str) for name in columns):
        raise ConfigurationError('columns must map names to fields, as {"Mobile": "phone"} does.')
    fields = [field for field in columns.values() if field is not None]
    if not set(FIELDS).issuperset(fields) or len(set(fields)) < len(fields):
        raise ConfigurationError(f"columns takes each of these fields once: {', '.join(FIELDS)}.")
    return dict(columns)


def fields_by_name(
    names: Iterable[str], columns: Mapping[str, str | None]
) -> list[tuple[str, str | None]]:
    """Return names of columns with the fields that they mean; None for one that isn't ours."""
    given = {letters_of(name): to for name, to in columns.items()}
    taken = set(given.values()) - {None}
    guesses = ((name, field_of(name)) for name in names)
    return [
        (name, given.get(letters_of(name), None if guess in taken else guess))
        for name, guess in guesses
    ]


def require_columns(named: Sequence[_Named], columns: Mapping[str, str | None]) -> None:
    """Refuse a file that lacks a column, or has two for one field.

    Raises:
        ConfigurationError: It does; the message names them.
    """
    present = {letters_of(name) for name, _ in named}
    unknown = [name for name in columns if letters_of(name) not in present]
    if unknown:
        raise ConfigurationError(f"The file has no column {', '.join(map(repr, unknown))}.")
    fields = [to for _, to in named]
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise ConfigurationError(
            f"The file's first line must name its columns; it lacks {', '.join(missing)}. Rename"
            ' columns, or say what they mean: columns={"Mobile": "phone"} (--column Mobile=phone).'
        )
    twice = {name for name in fields if name is not None and fields.count(name) > 1}
    if twice:
        raise ConfigurationError(
            f"Two columns mean {', '.join(sorted(twice))}: rename or remove one of them, or"
            " choose with columns= (--column)."
        )


@frozen
class UnreadableRow:
    """A row that a source could not read; it becomes a rejected outcome."""

    reason: str
    """What is wrong, in words that are safe to publish."""
    line: int | None = None
    """The line of the file that it begins on, from 1."""


class FileRow(dict[str, Any]):
    """A row of a file: its values by name, and where it stands."""

    __slots__ = ("line",)

    def __init__(self, values: Iterable[tuple[str, Any]], line: int) -> None:
        super().__init__(values)
        self.line: int = line
        """The line of the file that the row begins on, from 1."""


Row = FileRow | UnreadableRow


def line_of(row: object) -> int | None:
    """Return the line of the file that a row begins on; None if it is of no file."""
    return row.line if isinstance(row, FileRow | UnreadableRow) else None


_YES = frozenset({"true", "yes", "y", "t", "1"})
_NO = frozenset({"false", "no", "n", "f", "0"})


@frozen(kw_only=True)
class RowCheck:
    """The rules for rows of one job."""

    policy: PhonePolicy
    region: str | None
    """Region of national phone numbers; None refuses them."""
    needs_opt_in: bool
    """Whether invites go out by SMS too. Source: /guides/sending-invites."""

    def read(self, row: object) -> NewCandidate | GatherError:
        """Return the row as a candidate, or why it can't be one. Never raises for a bad row."""
        try:
            candidate = self._again(row) if isinstance(row, NewCandidate) else self._new(row)
            if self.needs_opt_in and candidate.sms_opt_in is not True:
                raise InviteNotDeliverableError(
                    "An SMS invite needs a candidate who agreed to text messages:"
                    " sms_opt_in must be yes."
                )
            _require_text(candidate)
        except GatherError as error:
            # Kept for hours in outcomes: the frames of its traceback must not be.
            return error.with_traceback(None)
        return candidate

    def _again(self, candidate: NewCandidate) -> NewCandidate:
        """Return a candidate under the client's phone policy, which may ask for more."""
        phone = to_e164(candidate.phone, self.region, self.policy)
        external_id = candidate.external_id
        if isinstance(external_id, str) and not external_id.isascii():
            external_id = _visible(external_id).strip() or None
        if (phone, external_id) == (candidate.phone, candidate.external_id):
            return candidate
        return evolve(candidate, phone=phone, external_id=external_id)

    def _new(self, row: object) -> NewCandidate:
        if isinstance(row, UnreadableRow):
            raise InvalidRequestError(row.reason)
        values = {
            name: _read_value(name, value) for name, value in fields_of(_mapping(row)).items()
        }
        for name in REQUIRED:
            if values.get(name) is None:
                raise InvalidRequestError(f"The row has no {name}.")
        return NewCandidate(
            first_name=_as_text("first_name", values["first_name"]),
            last_name=_as_text("last_name", values["last_name"]),
            email=_as_text("email", values["email"]),
            phone=to_e164(_as_text("phone", values["phone"]), self.region, self.policy),
            external_id=_optional_text("external_id", values.get("external_id")),
            timezone=_optional_text("timezone", values.get("timezone")),
            sms_opt_in=_yes_or_no(values.get("sms_opt_in")),
        )


def _mapping(row: object) -> Mapping[Any, Any]:
    """Return a row of names and values; databases' rows have both without being mappings.

    Raises:
        InvalidRequestError: It is something else, or has values without a name.
    """
    keys = getattr(row, "keys", None)
    values: Any = row
    if isinstance(row, type) or not callable(keys) or not hasattr(row, "__getitem__"):
        raise InvalidRequestError(
            "A row must be a NewCandidate or a mapping of the candidate's fields."
        )
    names: Any = () if isinstance(row, Mapping) else keys()
    mapping = row if isinstance(row, Mapping) else {name: values[name] for name in names}
    if mapping.get(None):  # where csv.DictReader puts them
        raise InvalidRequestError("The row has more cells than the header: is a quote missing?")
    return mapping


_NAMES = frozenset({"first_name", "last_name"})
_NUMBERS = frozenset({"phone", "external_id"})
# What data frames and databases write where there is nothing. Null is also a surname.
_NOTHING = frozenset({"nan", "NaN", "NaT", "<NA>", "None", "\\N"})
_NOTHING_BUT_A_NAME = frozenset({"null", "NULL"})
_FORMULA_TEXT = re.compile(r'="(.*)"', re.DOTALL)
_FORMULA_ERROR = re.compile(r"#(?:N/A|NAME\?|REF!|VALUE!|DIV/0!|NUM!|NULL!|SPILL!|CALC!)|#{3,}")
_TEXT_MARK = re.compile(r"'(?=\+?[0-9])")
_WHOLE_PHONE = re.compile(r"(\+?[0-9]{7,15})\.0")
# 1.20256E+10, 1001.0, 12,025 and 12.025.550 are what cells show of other numbers.
_SHOWN_NUMBER = re.compile(
    r"[0-9](?:[.,][0-9]+)?[eE][+-][0-9]{2,3}|[0-9]+[.,]0+"
    r"|[0-9]{1,3}(?:[,'][0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,3}(?:\.[0-9]{3}){2,}(?:,[0-9]+)?"
)
# Whole numbers that a double has exactly.
_LARGEST_EXACT = 1 << 53


def _read_value(name: str, value: Any) -> Any:
    """Return what a value means: text, a number's text, a bool; None if it is nothing.

    Raises:
        InvalidRequestError: A spreadsheet or data frame has changed it.
    """
    if isinstance(value, str):
        return _read_text(name, str.__str__(value))
    if type(value).__name__ in {"NAType", "NaTType"}:  # pandas', which compare to nothing
        return None
    if type(value).__name__ in {"bool_", "bool"}:  # NumPy's isn't Python's
        return bool(value)
    if isinstance(value, Integral):
        return str(int(value))
    return _whole(name, value) if isinstance(value, Real | Decimal) else value


def _read_text(name: str, text: str) -> str | None:
    if wrapped := _FORMULA_TEXT.fullmatch(text.strip()):
        text = wrapped[1]
    if not text.isascii():
        if _LOST.search(text):
            raise _not_text(name)
        text = _visible(text, is_name=name in _NAMES)
    text = text.strip()
    if not text or text in _NOTHING or (name not in _NAMES and text in _NOTHING_BUT_A_NAME):
        return None
    if name in _NUMBERS:
        text = _TEXT_MARK.sub("", text, count=1) if text[0] == "'" else text
    if name == "phone" and (whole := _WHOLE_PHONE.fullmatch(text)):
        return whole[1]
    if _FORMULA_ERROR.fullmatch(text) or (name == "external_id" and _SHOWN_NUMBER.fullmatch(text)):
        raise _changed_by_spreadsheet(name)
    if name in _NAMES and "\\" in text:
        raise InvalidRequestError(
            f"The row's {name} holds a backslash: an escape was not resolved."
        )
    if not text.isascii():
        _require_right_encoding(name, text)
    return text


def _visible(text: str, *, is_name: bool = False) -> str:
    """Return the text without invisible characters, and with plain spaces.

    In names, joiners between letters stay: scripts need them.
    """
    kept = (" " if unicodedata.category(c) == "Zs" else c for c in text)
    if is_name:
        return "".join(c for c in kept if c not in _NEVER_IN_NAMES).strip(_JOINERS + " ")
    return "".join(c for c in kept if unicodedata.category(c) != "Cf")


_JOINERS = "\u200c\u200d"
_NEVER_IN_NAMES = frozenset("\ufeff\u200b\u200e\u200f\u2060\u00ad\u202a\u202b\u202c\u202d\u202e")


def _whole(name: str, value: Any) -> str | None:
    """Return a whole number's digits; None if it is not a number.

    Raises:
        InvalidRequestError: It is no whole number, or digits of it may be lost.
    """
    if value != value:  # noqa: PLR0124 - what is not a number
        return None
    is_exact = isinstance(value, Decimal) or abs(value) < _LARGEST_EXACT
    digits = str(int(value)) if is_exact and value == value // 1 else ""
    # A number that was shown as 1.20256E+10 comes back as 12025600000.
    if not digits or (len(digits) > 9 and digits.endswith("00000")):
        raise _changed_by_spreadsheet(name)
    return digits


def _changed_by_spreadsheet(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"A spreadsheet or data frame has changed the row's {name}: format its column as text, and"
        " enter the value again."
    )


def _require_right_encoding(name: str, text: str) -> None:
    """Refuse UTF-8 that was read as Windows-1252; no name or id looks like that."""
    try:
        text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return
    raise InvalidRequestError(
        f"The row's {name} is UTF-8 that was read as Windows-1252: name the encoding, or export"
        " the source again."
    )


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise InvalidRequestError(f"The row's {name} must be text.")


def _optional_text(name: str, value: Any) -> str | None:
    return None if value is None else _as_text(name, value)


def _yes_or_no(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    word = value.casefold() if isinstance(value, str) else ""
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise InvalidRequestError("The row's sms_opt_in must be yes or no.")


def _require_text(candidate: NewCandidate) -> None:
    """Refuse what could not be sent as JSON, or be identified in the journal."""
    for name in FIELDS:
        value = getattr(candidate, name)
        if value is not None and name != "sms_opt_in" and not _is_plain(value):
            raise _not_text(name)


def _not_text(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The row's {name} holds characters that aren't text in its encoding: mend them, or name"
        " the file's encoding (encoding=, --encoding)."
    )


# Bytes that the file's encoding doesn't have, and characters that were lost before.
_LOST = re.compile("[\ud800-\udfff\ufffd]")
_NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and not _NOT_TEXT.search(value)
