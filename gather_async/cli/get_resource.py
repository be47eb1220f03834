"""``get RESOURCE ID...``: what the server has, as JSON."""

import argparse
import asyncio
from typing import Any

from gather_async.cli.context import connect
from gather_async.cli.exit_status import ExitStatus
from gather_async.cli.output import Screen
from gather_async.cli.plain import to_plain
from gather_async.cli.resource_names import RESOURCES

__all__ = ["add_to"]

_SINGLE = {name: resource for name, resource in RESOURCES.items() if resource.has_get}


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser("get", help="show one object as JSON", allow_abbrev=False)
    parser.add_argument("resource", choices=_SINGLE, metavar="RESOURCE", help=", ".join(_SINGLE))
    parser.add_argument("id", metavar="ID")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, screen: Screen) -> int:
    return asyncio.run(_get(options, screen))


async def _get(options: argparse.Namespace, screen: Screen) -> int:
    async with connect() as gather:
        found = await _SINGLE[options.resource].of(gather).get(options.id)
    screen.json(to_plain(found), indent=2)
    return ExitStatus.OK
