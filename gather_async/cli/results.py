"""``results``: the results of everyone invited to an interview, in one file."""

import argparse
import asyncio
import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from attrs import evolve

from gather_async.cli.context import ExitStatus, connect
from gather_async.cli.output import Output, to_jsonable
from gather_async.client import GatherClient
from gather_async.errors import (
    AuthenticationError,
    GatherError,
    NotFoundError,
    PermissionDeniedError,
)
from gather_async.models import CandidateInterview

__all__ = ["add_to"]

_COLUMNS = (
    "candidate_interview_id",
    "candidate_id",
    "interview_id",
    "status",
    "invite_sent_at",
    "summary_status",
    "summary",
    "score_card",
    "extra",
    "error",
)
# A spreadsheet runs a cell that starts so as a formula, and candidates write these texts.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = Mapping[str, Any]


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "results", help="write the results of an interview to a file", allow_abbrev=False
    )
    parser.add_argument("--interview", required=True, metavar="ID")
    parser.add_argument(
        "--output",
        required=True,
        type=_output,
        metavar="FILE",
        help="its name ends in .csv or .jsonl; replaced only once all is written",
    )
    parser.set_defaults(command=_run)


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".csv", ".jsonl"}:
        raise argparse.ArgumentTypeError("the file's name must end in .csv or .jsonl")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError("the folder of the file doesn't exist")
    return path


def _run(options: argparse.Namespace, output: Output) -> int:
    path: Path = options.output
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            count, failed = asyncio.run(_export(options.interview, path.suffix, file, output))
        part.replace(path)
    except OSError as error:
        output.error(f"{path} can't be written: {error.strerror or error}")
        return ExitStatus.FAILURE
    finally:
        if part.is_file():
            part.unlink()
    output.print(f"{count} candidate interviews, {failed} of them not readable: {path}")
    return ExitStatus.FAILURE if failed else ExitStatus.OK


async def _export(interview: str, suffix: str, file: TextIO, output: Output) -> tuple[int, int]:
    """Write a row for each candidate interview; return how many, and how many failed.

    The results of a page are read side by side, at bulk priority.
    """
    write = _csv_writer(file) if suffix == ".csv" else _json_writer(file)
    count = failed = 0
    async with connect() as client:
        gather = client.with_options(priority="bulk")
        with output.err.status("reading the first page", spinner="line") as status:
            async for page in gather.candidate_interviews.list(interview_id=interview).pages():
                for row in await asyncio.gather(*(_row(gather, each) for each in page.items)):
                    write(row)
                    count += 1
                    failed += bool(row["error"])
                status.update(f"{count} of {page.total or 'so many'} read")
    return count, failed


async def _row(gather: GatherClient, invite: CandidateInterview) -> Row:
    """Read one result. A result that isn't there yet is no failure; a refused key ends all."""
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {
        "candidate_interview_id": invite.id,
        "candidate_id": invite.candidate_id,
        "interview_id": invite.interview_id,
        "status": to_jsonable(invite.status),
        "invite_sent_at": to_jsonable(invite.invite_sent_at),
    }
    try:
        found = await gather.candidate_interviews.results(invite.id)
        row |= evolve(found, extra={}).to_dict() | {"extra": to_jsonable(found.extra) or None}
    except NotFoundError:
        pass
    except (AuthenticationError, PermissionDeniedError):
        raise
    except GatherError as error:
        row["error"] = str(error)
    return row


def _json_writer(file: TextIO) -> Callable[[Row], object]:
    return lambda row: file.write(json.dumps(row) + "\n")


def _csv_writer(file: TextIO) -> Callable[[Row], object]:
    writer = csv.writer(file)
    writer.writerow(_COLUMNS)
    return lambda row: writer.writerow([_cell(row[column]) for column in _COLUMNS])


def _cell(value: Any) -> str:
    """Return the text of a cell; what isn't text is JSON."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
