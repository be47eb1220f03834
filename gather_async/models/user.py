"""Users. Source: /api-reference/users."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gather_async.models.fields import Model, check_email, id_tuple, wire
from gather_async.phone import to_e164
from gather_async.validators import private_init

__all__ = ["NewUser", "User"]


@frozen(kw_only=True)
class User(Model):
    """A member of the organization. Its ``repr`` shows no personal data."""

    id: str
    first_name: str | None = field(default=None, repr=False, metadata=wire("firstName"))
    last_name: str | None = field(default=None, repr=False, metadata=wire("lastName"))
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    is_api_user: bool | None = field(default=None, metadata=wire("isApiUser"))
    """True for a user who can't enter the dashboard."""
    extra: Mapping[str, Any] = field(factory=dict, repr=False, hash=False)
    """Fields that this class doesn't name, as sent; the user's teams are among them."""


def _optional_phone(raw: object) -> str | None:
    return None if raw is None else to_e164(raw)


@private_init
@frozen
class NewUser:
    """A user to create, checked. Its ``repr`` shows no personal data.

    Raises:
        InvalidPhoneNumberError: The phone number is not E.164.
        InvalidEmailError: The email address can't be one.
        InvalidRequestError: ``team_ids`` is one text.
    """

    first_name: str = field(repr=False)
    last_name: str = field(repr=False)
    email: str = field(repr=False, converter=check_email)
    team_ids: tuple[str, ...] = field(converter=id_tuple)
    """At least one, all in the key's organization."""
    phone: str | None = field(default=None, repr=False, converter=_optional_phone)
    create_auth0_account: bool | None = None
    """True makes a regular user; otherwise an API user without dashboard access."""
