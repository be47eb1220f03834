"""``webhooks inbox``: list, replay and discard the events that an inbox stores."""

import argparse
import asyncio
import json
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gather_async.cli.context import add_common, add_json, count
from gather_async.cli.output import ExitStatus, Output
from gather_async.errors import ConfigurationError
from gather_async.webhooks import DeadLetter, EventState, Inbox, InboxEntry, SQLiteInbox

__all__ = ["add_inbox_to"]

# Events that are read at once, so that an inbox of any size fits into memory.
_EVENTS_AT_ONCE = 500
# The states that each command changes events of.
_CHANGEABLE = {
    "replay": (EventState.DEAD, EventState.IGNORED, EventState.DONE),
    "discard": (EventState.DEAD, EventState.IGNORED, EventState.WAITING),
}
_COLUMNS = ("key", "event", "state", "tenant", "received", "failed handlers")


def add_inbox_to(commands: Any) -> None:
    """Add the commands to the program."""
    parser = commands.add_parser(
        "inbox", help="list, replay or discard stored events", allow_abbrev=False
    )
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, states, does in (
        ("list", tuple(EventState), "list stored events, oldest first"),
        ("replay", _CHANGEABLE["replay"], "give events to their handlers again"),
        ("discard", _CHANGEABLE["discard"], "give events up as if they were done"),
    ):
        each = inner.add_parser(name, help=does, allow_abbrev=False)
        if name != "list":
            each.add_argument(
                "keys", nargs="*", metavar="KEY", help="of single events; else all that match"
            )
            each.add_argument(
                "--handler",
                action="append",
                metavar="NAME",
                help="only for this handler; may be repeated",
            )
        each.add_argument(
            "--inbox", required=True, type=_inbox, metavar="sqlite:PATH", help="the inbox's file"
        )
        words = [state.value for state in states]
        each.add_argument("--state", choices=words, metavar="STATE", help=", ".join(words))
        each.add_argument("--event", metavar="NAME", help="only events of this name")
        each.add_argument("--tenant", metavar="NAME", help="only this tenant's events")
        if name == "list":
            each.add_argument(
                "--limit", type=count(1), default=100, metavar="N", help="100 by default"
            )
        add_json(each, "JSON: an object a line for events, one for a count")
        add_common(each, connects=False)
        each.set_defaults(command=_run_inbox, action=name)


def _inbox(text: str) -> SQLiteInbox:
    scheme, _, path = text.partition(":")
    if scheme != "sqlite" or not path:
        raise argparse.ArgumentTypeError("write sqlite: and the file's path")
    path = path.removeprefix("//")
    if not Path(path).is_file():  # it would be made
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return SQLiteInbox(path)


def _run_inbox(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_on_inbox(options, output))


async def _on_inbox(options: argparse.Namespace, output: Output) -> int:
    inbox: Inbox = options.inbox
    try:
        if options.action == "list":
            await _list(inbox, options, output)
        else:
            changed = await _change(inbox, options)
            done = {"replay": "replayed", "discard": "discarded"}[options.action]
            if options.json:
                output.json({done: changed})
            else:
                output.print(f"{changed} {done}")
    finally:
        await inbox.aclose()
    return ExitStatus.OK


async def _list(inbox: Inbox, options: argparse.Namespace, output: Output) -> None:
    state = None if options.state is None else EventState(options.state)
    found = await inbox.list(
        state=state, event=options.event, tenant=options.tenant, limit=options.limit
    )
    letters: dict[str, list[DeadLetter]] = {}
    if any(each.state is EventState.DEAD for each in found):
        for letter in await inbox.dead_letters(limit=sys.maxsize):
            letters.setdefault(letter.key, []).append(letter)
    rows = [_row(entry, letters.get(entry.event.key, ())) for entry in found]
    if options.json:
        for entry, row in zip(found, rows, strict=True):
            errors = {each.handler: each.error for each in letters.get(entry.event.key, ())}
            values = dict(zip((each.replace(" ", "_") for each in _COLUMNS), row, strict=True))
            output.json(values | {"failed_handlers": errors, "body": json.loads(entry.event.text)})
    else:
        output.table(_COLUMNS, rows)
    counts = await inbox.counts()
    whole = ", ".join(f"{counts.get(state, 0)} {state}" for state in EventState)
    output.info(f"{len(found)} listed; in all {whole}", style="dim")


def _row(entry: InboxEntry, letters: Collection[DeadLetter]) -> Sequence[str | None]:
    event = entry.event
    at = datetime.fromtimestamp(event.received_at, UTC).isoformat(timespec="seconds")
    handlers = ", ".join(each.handler for each in letters)
    return event.key, event.name, entry.state.value, event.tenant, at, handlers


async def _change(inbox: Inbox, options: argparse.Namespace) -> int:
    """Replay or discard the events that are named, or all that match; return how many.

    Raises:
        ConfigurationError: Neither is given: that all are meant is to be said.
    """
    change = inbox.replay if options.action == "replay" else inbox.discard
    if options.keys:
        return await change(options.keys, handlers=options.handler)
    if not (options.state or options.event or options.tenant):
        raise ConfigurationError("Name the events' keys, or choose with --state dead.")
    state = EventState(options.state or EventState.DEAD)
    changed = 0
    seen: set[str] = set()  # a running worker may bring an event back into its old state
    while True:
        # What keeps its state, such as for another handler's sake, stays at the front.
        limit = len(seen) + _EVENTS_AT_ONCE
        found = await inbox.list(
            state=state, event=options.event, tenant=options.tenant, limit=limit
        )
        keys = {each.event.key for each in found} - seen
        if not keys:
            return changed
        seen |= keys
        changed += await change(keys, handlers=options.handler)
