"""How an invite reaches somebody, checked before anything is sent."""

from collections.abc import Sequence

from gather_async.errors import InviteNotDeliverableError
from gather_async.models.enums import DeliveryType

__all__ = ["checked_delivery"]


def checked_delivery(
    delivery_types: Sequence[DeliveryType | str] | None, *, send_invite: bool | None
) -> list[str] | None:
    """Return the JSON array of delivery types, if they and ``send_invite`` agree.

    Raises:
        InviteNotDeliverableError: They don't.

    Source: quickstart, common issues
    """
    if isinstance(delivery_types, str):
        raise InviteNotDeliverableError('delivery_types must be a list, such as ["email"].')
    if send_invite and not delivery_types:
        raise InviteNotDeliverableError(
            "send_invite=True reaches nobody without delivery_types: "
            'pass ["email"], ["sms"] or both.'
        )
    if delivery_types and not send_invite and send_invite is not None:
        raise InviteNotDeliverableError(
            "delivery_types without an invite do nothing: pass send_invite=True, or leave them out."
        )
    return None if delivery_types is None else [str(word) for word in delivery_types]
