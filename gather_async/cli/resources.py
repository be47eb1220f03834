"""``list``, ``get``, ``create``, ``invite-one`` and ``status``: single objects and their lists."""

import argparse
import asyncio
import inspect
from collections import Counter
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gather_async.cli.context import (
    add_common,
    add_invite,
    add_json,
    check_interview,
    connect,
    connection,
    count,
)
from gather_async.cli.output import ExitStatus, Output, to_jsonable
from gather_async.client import GatherClient
from gather_async.errors import InvalidRequestError
from gather_async.models import CandidateInterviewStatus

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
        "--limit", type=count(1), metavar="N", help="stop after N items; all by default"
    )
    add_json(parser, "one JSON object a line")
    add_common(parser)
    parser.set_defaults(command=_run_list)


def _run_list(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_list(options, output))


async def _list(options: argparse.Namespace, output: Output) -> int:
    """Read pages only as far as they are shown."""
    name = RESOURCES[options.resource]
    rows: list[list[Any]] = []
    listed = 0
    async with connect(**connection(options)) as gather:
        pager = name.of(gather).list(**_filters(name.of(gather).list, options.where))
        async for item in pager:
            listed += 1
            if options.json:
                output.json(to_jsonable(item))
            elif output.is_piped:
                output.row(*[_cell(getattr(item, column)) for column in name.columns])
            else:
                rows.append([_cell(getattr(item, column)) for column in name.columns])
            if listed == options.limit or output.is_lost:
                break
    if rows:
        output.table([column.replace("_", " ") for column in name.columns], rows)
    output.info(f"{options.resource}: {listed} listed", style="dim")
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
    parser.add_argument("id", metavar="ID", help="the object's id")
    add_json(parser, "JSON in one line instead of many")
    add_common(parser)
    parser.set_defaults(command=_run_get)


def _run_get(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_get(options, output))


async def _get(options: argparse.Namespace, output: Output) -> int:
    async with connect(**connection(options)) as gather:
        found = await _SINGLE[options.resource].of(gather).get(options.id)
    output.json(to_jsonable(found), indent=None if options.json else 2)
    return ExitStatus.OK


# The options of each `create`, by the argument that they fill: metavar, help, and more.
_QUESTION: Mapping[str, Mapping[str, Any]] = {
    "title": {"required": True, "help": "what the dashboard shows"},
    "question_script": {"metavar": "TEXT", "help": "what the narrator says"},
    "user_id": {"metavar": "ID", "help": "the creator; GATHER_USER_ID by default"},
    "audio_url": {"metavar": "URL", "help": "a recording, instead of a narrator's"},
    "description": {"help": "a note"},
    "narrator_id": {"metavar": "ID", "help": "who speaks; `list narrators` shows them"},
    "generate_audio": {"action": "store_true", "help": "make the audio from the script"},
}
_INTERVIEW: Mapping[str, Mapping[str, Any]] = {
    "title": {"required": True, "help": "what the dashboard shows"},
    "display_name": {"metavar": "NAME", "help": "what candidates see"},
    "interview_type": {"metavar": "WORD", "default": "standard", "help": "standard by default"},
    "question_ids": {
        "metavar": "ID",
        "nargs": "+",
        "help": "questions, in the order in which they are asked",
    },
    "description": {"help": "a note"},
    "language": {"metavar": "CODE", "help": "such as en"},
    "keywords": {"metavar": "WORD", "nargs": "+", "help": "what answers are searched for"},
}
_CANDIDATE: Mapping[str, Mapping[str, Any]] = {
    "first_name": {"metavar": "NAME", "help": "the first name"},
    "last_name": {"metavar": "NAME", "help": "the last name"},
    "email": {"help": "the email address"},
    "phone": {"help": "E.164, such as +12025550123, or national with --region"},
    "external_id": {"metavar": "ID", "help": "your own reference: a second run makes no second"},
    "timezone": {"metavar": "ZONE", "help": "such as America/New_York"},
    "sms_opt_in": {"action": "store_true", "help": "they agreed to get SMS"},
}
_REQUIRED = ("first_name", "last_name", "email", "phone")
_KINDS = {"question": _QUESTION, "interview": _INTERVIEW, "candidate": _CANDIDATE}


def _add_fields_to(parser: argparse.ArgumentParser, kind: str, *, optional: bool = False) -> None:
    for name, settings in _KINDS[kind].items():
        is_required = kind == "candidate" and name in _REQUIRED and not optional
        flag = f"--{name.replace('_', '-')}"
        shown = {} if "action" in settings else {"metavar": name.upper()}
        parser.add_argument(flag, **{"required": is_required, **shown, **settings})
    if kind == "candidate":
        parser.add_argument("--region", metavar="US", help="where a national phone number belongs")


def _fields(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Return what the options say of an object; what they don't name is left to the server."""
    given = {name: getattr(options, name) for name in _KINDS[kind]}
    return {name: value for name, value in given.items() if value not in (None, False)}


def _add_create_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "create",
        description="Create one object, and print its id.",
        allow_abbrev=False,
    )
    inner = parser.add_subparsers(title="objects", metavar="OBJECT", required=True)
    for kind in _KINDS:
        article = "an" if kind[0] in "aeiou" else "a"
        each = inner.add_parser(kind, help=f"create {article} {kind}", allow_abbrev=False)
        _add_fields_to(each, kind)
        add_json(each, "the whole object, as one JSON document")
        add_common(each)
        each.set_defaults(command=_run_create, kind=kind)


def _run_create(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_create(options, output))


async def _create(options: argparse.Namespace, output: Output) -> int:
    region = getattr(options, "region", None)
    async with connect(default_region=region, **connection(options)) as gather:
        resource = RESOURCES[f"{options.kind}s"].of(gather)
        fields = _fields(options, options.kind)
        # With a reference of one's own, a repeated command finds what the first one made.
        is_known = fields.get("external_id") is not None
        made = await (resource.get_or_create if is_known else resource.create)(**fields)
    if options.json:
        output.json(to_jsonable(made))
    else:
        output.print(made.id)
    return ExitStatus.OK


def _add_invite_one_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "invite-one",
        description="Create a candidate, or take one, and send an invite, unless the candidate"
        " has one to this interview. Prints the candidate's id and the candidate interview's.",
        allow_abbrev=False,
    )
    parser.add_argument("--candidate", metavar="ID", help="one that exists, instead of a new one")
    _add_fields_to(parser, "candidate", optional=True)
    add_invite(parser)
    add_json(parser, "the candidate interview, as one JSON document")
    add_common(parser)
    parser.set_defaults(command=_run_invite_one)


def _run_invite_one(options: argparse.Namespace, output: Output) -> int:
    fields = _fields(options, "candidate")
    missing = [f"--{name.replace('_', '-')}" for name in _REQUIRED if name not in fields]
    if options.candidate is None and missing:
        raise InvalidRequestError(f"Name the person: {', '.join(missing)}; or --candidate ID.")
    if options.candidate is not None and fields:
        raise InvalidRequestError("Pass --candidate, or a new person's fields, not both.")
    if "sms" in options.via and options.candidate is None and not options.sms_opt_in:
        raise InvalidRequestError("--via sms needs --sms-opt-in: that they agreed to get SMS.")
    return asyncio.run(_invite_one(options, fields, output))


async def _invite_one(
    options: argparse.Namespace, fields: Mapping[str, Any], output: Output
) -> int:
    async with connect(default_region=options.region, **connection(options)) as gather:
        await check_interview(gather, options.interview)  # before a person is made for nothing
        candidate = options.candidate
        if candidate is None:
            is_known = "external_id" in fields
            make = gather.candidates.get_or_create if is_known else gather.candidates.create
            candidate = (await make(**fields)).id
            output.info(f"candidate {candidate}", style="dim")
        link = await gather.candidate_interviews.get_or_create(
            candidate_id=candidate,
            interview_id=options.interview,
            send_invite=True,
            delivery_types=options.via,
            expiry_days=options.expiry_days,
            external_redirect_uri=options.redirect_uri,
        )
    if options.json:
        output.json(to_jsonable(link))
    else:
        output.row(candidate, link.id, link.status)
    return ExitStatus.OK


def _add_status_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "status",
        description="Show the status of candidate interviews, and with --set change it; with"
        " --interview count the statuses of everyone invited to it; with neither show the quota.",
        allow_abbrev=False,
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="of a candidate interview")
    parser.add_argument(
        "--set",
        metavar="STATUS",
        help=f"the new status: {', '.join(CandidateInterviewStatus)}",
    )
    parser.add_argument("--interview", metavar="ID", help="count everyone invited to it")
    add_json(parser, "one JSON object a line")
    add_common(parser)
    parser.set_defaults(command=_run_status)


def _run_status(options: argparse.Namespace, output: Output) -> int:
    if options.set is not None and not options.ids:
        raise InvalidRequestError("--set changes candidate interviews: name their ids.")
    if options.ids and options.interview is not None:
        raise InvalidRequestError("Name candidate interviews, or --interview, not both.")
    return asyncio.run(_status(options, output))


async def _status(options: argparse.Namespace, output: Output) -> int:
    async with connect(**connection(options)) as gather:
        if options.interview is not None:
            await _show_counts(gather, options, output)
        elif not options.ids:
            await _show_quota(gather, options, output)
        for link_id in options.ids:
            links = gather.candidate_interviews
            change = options.set
            link = await (
                links.get(link_id) if change is None else links.update_status(link_id, change)
            )
            if options.json:
                output.json(to_jsonable(link))
            else:
                sent = to_jsonable(link.invite_sent_at)
                output.row(link.id, link.status, sent, to_jsonable(link.updated_at))
    return ExitStatus.OK


async def _show_counts(gather: GatherClient, options: argparse.Namespace, output: Output) -> None:
    """Print how many candidate interviews of an interview are in each status."""
    await check_interview(gather, options.interview)  # a misspelt id would count nothing
    counts: Counter[str] = Counter()
    async for link in gather.candidate_interviews.list(interview_id=options.interview):
        counts[str(to_jsonable(link.status))] += 1
    if options.json:
        output.json({"interview_id": options.interview, "statuses": dict(counts)})
        return
    output.table(["status", "candidates"], counts.most_common())
    output.info(f"candidate interviews: {counts.total()}", style="dim")


async def _show_quota(gather: GatherClient, options: argparse.Namespace, output: Output) -> None:
    """Print the server and what is left of the key's quota; costs one request."""
    await gather.narrators.list()
    quota = gather.rate_limit_status
    if options.json:
        output.json({"base_url": gather.base_url, "quota": to_jsonable(quota)})
        return
    output.info(gather.base_url, style="dim")
    rows = [[f"{each.period:g} s", each.limit, each.used, each.remaining] for each in quota.windows]
    output.table(["window", "requests", "used", "left"], rows)


def add_to(commands: Any) -> None:
    """Add the commands to the program."""
    _add_list_to(commands)
    _add_get_to(commands)
    _add_create_to(commands)
    _add_invite_one_to(commands)
    _add_status_to(commands)
