"""``webhooks inbox``: list, replay and discard the events that an inbox stores."""

import argparse
import asyncio
import importlib
import json
import os
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gather_async.cli.context import add_common, add_json, count
from gather_async.cli.output import ExitStatus, Output
from gather_async.errors import ConfigurationError, GatherError
from gather_async.webhooks import DeadLetter, EventState, Inbox, InboxEntry, SQLiteInbox

__all__ = ["add_inbox_to"]

# Events that are read at once, so that an inbox of any size fits into memory.
_EVENTS_AT_ONCE = 500
# The states that each command changes events of.
_CHANGEABLE = {
    "replay": (EventState.DEAD, EventState.IGNORED, EventState.DONE),
    "discard": (EventState.DEAD, EventState.IGNORED, EventState.WAITING),
}
_ALL = 10_000_000  # more letters than anyone keeps, and a number that every storage takes
# The extra, which names the module, too; the class; and its argument that is --name here.
_REDIS = ("redis", "RedisInbox", "name")
_POSTGRES = ("postgres", "PostgresInbox", "schema")
_STORES = {
    "redis": _REDIS,
    "rediss": _REDIS,
    "unix": _REDIS,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
}
_DESCRIPTION = "Work on the events that a webhook receiver's inbox stores; it may be running."
_COLUMNS = ("key", "event", "state", "tenant", "received", "failed handlers")


def add_inbox_to(commands: Any) -> None:
    """Add the commands to ``webhooks``."""
    parser = commands.add_parser(
        "inbox", help="list, replay or discard stored events", allow_abbrev=False
    )
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_to(inner, "list", "list", "list stored events, oldest first")
    for home in (inner, commands):  # the everyday ones are reached in two words, too
        _add_to(home, "replay", "replay", "give stored events to their handlers again")
        _add_to(home, "discard", "discard", "give stored events up as if they were done")
    _add_to(commands, "dead-letters", "list", "list events that a handler failed on for good")


def _add_to(commands: Any, name: str, action: str, does: str) -> None:
    parser = commands.add_parser(name, help=does, description=_DESCRIPTION, allow_abbrev=False)
    if action != "list":
        parser.add_argument(
            "keys", nargs="*", metavar="KEY", help="of single events; else all that match"
        )
        parser.add_argument(
            "--handler",
            action="append",
            metavar="NAME",
            help="only for this handler; may be repeated",
        )
    parser.add_argument(
        "--inbox",
        default=os.environ.get("GATHER_INBOX"),
        metavar="URL",
        help="a file, sqlite:PATH, redis://... or postgresql://...; GATHER_INBOX by default,"
        " where a password is better kept than in arguments",
    )
    parser.add_argument(
        "--name",
        help="the name of a Redis inbox, the schema of one in Postgres, if it isn't the usual",
    )
    if name == "dead-letters":
        parser.set_defaults(state=EventState.DEAD.value)
    else:
        words = [state.value for state in _CHANGEABLE.get(action, tuple(EventState))]
        default = "" if action == "list" else "; dead if none is named"
        parser.add_argument(
            "--state", choices=words, metavar="STATE", help=", ".join(words) + default
        )
    parser.add_argument("--event", metavar="NAME", help="only events of this name")
    parser.add_argument("--tenant", metavar="NAME", help="only this tenant's events")
    if action == "list":
        parser.add_argument(
            "--limit", type=count(1), default=100, metavar="N", help="100 by default"
        )
    add_json(parser, "JSON: an object a line for events, one for a count")
    add_common(parser, connects=False)
    parser.set_defaults(command=_run_inbox, action=action)


def _inbox(address: str | None, name: str | None) -> Inbox:
    """Return the inbox at an address; only its own kind's packages are imported.

    Raises:
        ConfigurationError: The address is none, there is no such file, or the kind's extra
            is missing.
    """
    if not address:
        raise ConfigurationError("Name the inbox: --inbox URL, or GATHER_INBOX.")
    scheme, colon, path = address.partition(":")
    if colon and scheme in _STORES:
        extra, store, named = _STORES[scheme]
        try:
            kind = getattr(importlib.import_module(f"gather_async.{extra}"), store)
        except ImportError:
            raise ConfigurationError(
                f"{scheme}: inboxes need a package: pip install 'gather-async[{extra}]'"
            ) from None
        inbox: Inbox = kind(address, **({} if name is None else {named: name}))
        return inbox
    if colon and "://" in address and scheme != "sqlite":  # its text may hold a password
        known = ", ".join(("sqlite", *_STORES))
        raise ConfigurationError(f"There are no {scheme} inboxes: --inbox takes {known}.")
    path = path.removeprefix("//") if colon and scheme == "sqlite" else address
    if not Path(path).is_file():  # it would be made
        raise ConfigurationError(f"There is no inbox {path}.")
    if name is not None:
        raise ConfigurationError("--name is for inboxes on a server: a file holds one.")
    return SQLiteInbox(path)


def _run_inbox(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_on_inbox(_inbox(options.inbox, options.name), options, output))


async def _on_inbox(inbox: Inbox, options: argparse.Namespace, output: Output) -> int:
    try:
        await inbox.open()
        if options.action == "list":
            await _list(inbox, options, output)
            return ExitStatus.OK
        changed = await _change(inbox, options)
    except (GatherError, OSError):
        raise
    except Exception as error:  # a storage may raise anything, with anything in its text
        raise GatherError(f"The inbox failed: {type(error).__name__}.") from error
    finally:
        await inbox.aclose()
    done = {"replay": "replayed", "discard": "discarded"}[options.action]
    if options.json:
        output.json({done: changed})
    else:
        output.print(f"{changed} {done}")
    left = len(set(options.keys)) - changed
    if left > 0:
        output.error(f"{left} of the keys name no event that can be {done}.")
        return ExitStatus.FAILURE
    return ExitStatus.OK


async def _list(inbox: Inbox, options: argparse.Namespace, output: Output) -> None:
    state = None if options.state is None else EventState(options.state)
    found = await inbox.list(
        state=state, event=options.event, tenant=options.tenant, limit=options.limit
    )
    letters: dict[str, list[DeadLetter]] = {}
    if any(each.state is EventState.DEAD for each in found):
        for letter in await inbox.dead_letters(limit=_ALL):
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
        ConfigurationError: Neither is given: that all are meant is to be said; or both are.
    """
    change = inbox.replay if options.action == "replay" else inbox.discard
    is_choosing = bool(options.state or options.event or options.tenant)
    if options.keys and is_choosing:
        raise ConfigurationError("Name keys, or choose with --state, --event, --tenant: not both.")
    if options.keys:
        return await change(options.keys, handlers=options.handler)
    if not is_choosing:
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
