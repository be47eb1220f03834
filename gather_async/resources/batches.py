"""Creating several objects in one request, where the API's response is undocumented.

Source: /api-reference/teams, /api-reference/users
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from gather_async.endpoint import Endpoint, Identified
from gather_async.errors import InvalidRequestError, ResponseDecodeError
from gather_async.protocol.requests import Request, path_to, with_extra
from gather_async.protocol.responses import decode_item, decode_items
from gather_async.resources.resource import read_after_write
from gather_async.transport import Timeout
from gather_async.unset import Unset

__all__ = ["create_batch"]

T = TypeVar("T", bound=Identified)
New = TypeVar("New")


async def create_batch(
    endpoint: Endpoint[T],
    new: Sequence[New],
    *,
    model: type[New],
    body: Callable[[New], Mapping[str, Any]],
    key: str,
    extra: Mapping[str, Any] | None,
    timeout: Timeout | Unset,
    idempotent: bool,
) -> tuple[T, ...]:
    """Create objects in one request and return them in the order given.

    The server's response is documented nowhere. Where it doesn't hold the objects,
    they are looked for in the list, by ``key``, at the cost of one request more.

    Args:
        endpoint: The collection.
        new: What to create, as models.
        model: Their class.
        body: Returns one of them as the wire has it; entries that are None are not sent.
        key: The attribute by which a created object is recognised.
        extra: Undocumented fields of the request's body.
        timeout: Seconds for each attempt.
        idempotent: The caller's word that creating them twice does no harm.

    Raises:
        InvalidRequestError: There is nothing to create.
        ResponseDecodeError: Neither the response nor the list shows all of them, or the
            list couldn't be read.
    """
    if not new:
        raise InvalidRequestError(f"There are no {endpoint.plural} to create.")
    if not all(isinstance(item, model) for item in new):
        raise InvalidRequestError(f"Each of the {endpoint.plural} must be a {model.__name__}.")
    request = Request(
        method="POST",
        path=path_to(endpoint.path),
        body=with_extra({endpoint.plural: [with_extra(body(item), None) for item in new]}, extra),
        needs_body=False,
    )
    shown = await endpoint.session.send(
        request,
        decode=partial(_from_response, endpoint),
        timeout=timeout,
        idempotent=idempotent,
    )
    if len(shown) != len(new):
        with read_after_write(f"the {endpoint.plural} were created"):
            shown = tuple([item async for item in endpoint.list(timeout=timeout)])
    return _in_order(new, shown, key, endpoint.plural)


def _from_response(endpoint: Endpoint[T], payload: Any) -> tuple[T, ...]:
    """Return the objects in the response, whatever its form; none if it has none."""
    try:
        return decode_items(payload, endpoint.plural, endpoint.model)
    except ResponseDecodeError:
        pass
    try:
        return (decode_item(payload, endpoint.singular, endpoint.model),)
    except ResponseDecodeError:
        return ()


def _in_order(new: Sequence[Any], shown: Sequence[T], key: str, plural: str) -> tuple[T, ...]:
    """Match what was created with what was asked for; of namesakes, the last one listed."""
    by_key = {getattr(item, key): item for item in shown}
    try:
        return tuple(by_key[getattr(item, key)] for item in new)
    except KeyError:
        raise ResponseDecodeError(
            f"The server said that the {plural} were created, but doesn't show all of them: "
            f"list {plural} before you create them again.",
            body="",
            path=f"$.data.{plural}",
            maybe_processed=True,
        ) from None
