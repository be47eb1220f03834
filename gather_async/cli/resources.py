"""``list RESOURCE``: a table, or JSON Lines."""

import argparse
import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gather_async.cli.context import connect
from gather_async.cli.output import ExitStatus, Output, to_jsonable
from gather_async.client import GatherClient
from gather_async.errors import InvalidRequestError

__all__ = ["RESOURCES", "ResourceName", "add_to"]


@frozen
class ResourceName:
    """One resource.

    Attributes:
        attribute: Its name on a client.
        columns: What a table shows of an item, the id first.
        has_get: Whether the API reads a single one.
    """

    attribute: str
    columns: tuple[str, ...]
    has_get: bool = True

    def of(self, gather: GatherClient) -> Any:
        """Return the resource of a client."""
        return getattr(gather, self.attribute)


RESOURCES: Mapping[str, ResourceName] = {
    "questions": ResourceName("questions", ("id", "title", "audio_state")),
    "interviews": ResourceName("interviews", ("id", "title", "interview_type", "status")),
    "candidates": ResourceName("candidates", ("id", "external_id", "first_name", "last_name")),
    "candidate-interviews": ResourceName(
        "candidate_interviews", ("id", "candidate_id", "interview_id", "status")
    ),
    "narrators": ResourceName("narrators", ("id", "name", "language")),
    "message-groups": ResourceName("message_groups", ("id", "title", "status", "type")),
    "teams": ResourceName("teams", ("id", "name", "display_name"), has_get=False),
    "users": ResourceName("users", ("id", "first_name", "last_name"), has_get=False),
}


def _add_list_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser("list", help="list a resource", allow_abbrev=False)
    parser.add_argument(
        "resource", choices=RESOURCES, metavar="RESOURCE", help=", ".join(RESOURCES)
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only what matches, such as external_id=ats-17; may be repeated",
    )
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="stop after N items; all by default"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(command=_run_list)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("take a number from 1")
    return int(text)


def _run_list(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_list(options, output))


async def _list(options: argparse.Namespace, output: Output) -> int:
    """Read pages only as far as they are shown."""
    name = RESOURCES[options.resource]
    rows: list[list[Any]] = []
    count = 0
    async with connect() as gather:
        pager = name.of(gather).list(**_filters(name.of(gather).list, options.where))
        async for item in pager:
            count += 1
            if options.json:
                output.json(to_jsonable(item))
            elif output.is_piped:
                output.row(*[_cell(getattr(item, column)) for column in name.columns])
            else:
                rows.append([_cell(getattr(item, column)) for column in name.columns])
            if count == options.limit or output.is_lost:
                break
    if rows:
        output.table([column.replace("_", " ") for column in name.columns], rows)
    output.info(f"{options.resource}: {count} listed", style="dim")
    return ExitStatus.OK


def _cell(value: Any) -> str:
    return "" if value is None else str(to_jsonable(value))


def _filters(method: Any, conditions: list[str]) -> dict[str, Any]:
    """Return the keyword arguments that the conditions mean to this list.

    Raises:
        InvalidRequestError: A condition isn't one, or this list has no such filter.
    """
    parameters = dict(inspect.signature(method).parameters)
    parameters.pop("timeout")
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    filters: dict[str, Any] = {}
    for condition in conditions:
        name, equals, text = condition.partition("=")
        if not equals or not (takes_any or name in parameters):
            known = "any of the server's own names" if takes_any else ", ".join(parameters)
            raise InvalidRequestError(
                f"--where takes NAME=VALUE; names of this list: {known or 'none'}."
            )
        is_switch = name in parameters and "bool" in str(parameters[name].annotation)
        filters[name] = _switch(name, text) if is_switch else text
    return filters


def _switch(name: str, text: str) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() not in words:
        raise InvalidRequestError(f"--where {name}= takes true or false.")
    return words[text.lower()]


_SINGLE = {name: resource for name, resource in RESOURCES.items() if resource.has_get}


def _add_get_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser("get", help="show one object as JSON", allow_abbrev=False)
    parser.add_argument("resource", choices=_SINGLE, metavar="RESOURCE", help=", ".join(_SINGLE))
    parser.add_argument("id", metavar="ID")
    parser.set_defaults(command=_run_get)


def _run_get(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_get(options, output))


async def _get(options: argparse.Namespace, output: Output) -> int:
    async with connect() as gather:
        found = await _SINGLE[options.resource].of(gather).get(options.id)
    output.json(to_jsonable(found), indent=2)
    return ExitStatus.OK


def add_to(commands: Any) -> None:
    """Add both commands to the program."""
    _add_list_to(commands)
    _add_get_to(commands)
