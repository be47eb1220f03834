"""Whether a row of the source can be sent: decided before anything else happens to it."""

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from gather_async.bulk.candidate_file import FIELDS, REQUIRED, UnreadableRow, fields_of
from gather_async.errors import GatherError, InvalidRequestError, InviteNotDeliverableError
from gather_async.models.candidate import NewCandidate
from gather_async.phone import PhonePolicy, to_e164
from gather_async.validators import is_whole

__all__ = ["RowCheck", "with_external_id"]

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
        return candidate if phone == candidate.phone else evolve(candidate, phone=phone)

    def _new(self, row: object) -> NewCandidate:
        if isinstance(row, UnreadableRow):
            raise InvalidRequestError(row.reason)
        if not isinstance(row, Mapping):
            raise InvalidRequestError(
                "A row must be a NewCandidate or a mapping of the candidate's fields."
            )
        values = {name: _clean(value) for name, value in fields_of(row).items()}
        for name in REQUIRED:
            if values.get(name) is None:
                raise InvalidRequestError(f"The row has no {name}.")
        phone = to_e164(_as_text("phone", values["phone"]), self.region, self.policy)
        return NewCandidate(
            first_name=_as_text("first_name", values["first_name"]),
            last_name=_as_text("last_name", values["last_name"]),
            email=_as_text("email", values["email"]),
            phone=phone,
            external_id=_optional_text("external_id", values.get("external_id")),
            timezone=_optional_text("timezone", values.get("timezone")),
            sms_opt_in=_yes_or_no(values.get("sms_opt_in")),
        )


def _clean(value: Any) -> Any:
    """Return text without the spaces around it; empty text is no value."""
    if isinstance(value, str):
        return value.strip() or None
    return value


def _as_text(name: str, value: Any) -> str:
    """Return text, also of a whole number, as JSON and spreadsheets have for ids and phones."""
    if isinstance(value, str):
        return value
    if is_whole(value):
        return str(value)
    raise InvalidRequestError(f"The row's {name} must be text.")


def _optional_text(name: str, value: Any) -> str | None:
    return None if value is None else _as_text(name, value)


def _yes_or_no(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    word = str(value).casefold() if isinstance(value, str | int) else ""
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise InvalidRequestError("The row's sms_opt_in must be yes or no.")


def _require_text(candidate: NewCandidate) -> None:
    """Refuse what could not be sent as JSON, or be told apart in the journal."""
    for name in FIELDS:
        value = getattr(candidate, name)
        if value is not None and name != "sms_opt_in" and not _is_plain(value):
            raise InvalidRequestError(f"The row's {name} holds characters that aren't text.")


def _is_plain(value: object) -> bool:
    # Lone surrogates mark bytes that the file's encoding doesn't have.
    if not isinstance(value, str):
        return False
    return value.isprintable() or not any(
        character < " " or "\ud800" <= character <= "\udfff" for character in value
    )


def with_external_id(candidate: NewCandidate, external_id: str) -> NewCandidate:
    """Return the candidate under the external id that the server will be told."""
    return evolve(candidate, external_id=external_id)
