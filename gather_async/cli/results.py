"""``results``: the results of everyone invited to an interview, in one file."""

import argparse
import asyncio
import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from attrs import evolve, frozen

from gather_async.cli.context import (
    add_common,
    add_json,
    check_interview,
    connect,
    connection,
)
from gather_async.cli.output import ExitStatus, Output, to_jsonable
from gather_async.client import GatherClient
from gather_async.errors import (
    AuthenticationError,
    GatherError,
    NotFoundError,
    PermissionDeniedError,
)
from gather_async.models import Candidate, CandidateInterview, CandidateInterviewStatus
from gather_async.storage.files import real_path, replacing

__all__ = ["add_to"]

_COLUMNS = (
    "candidate_interview_id",
    "candidate_id",
    "first_name",
    "last_name",
    "email",
    "interview_id",
    "status",
    "invite_sent_at",
    "summary_status",
    "summary",
    "score_card",
    "extra",
    "error",
)
# Who has not begun has no results. Source: /api-reference/candidate-interviews
_UNSTARTED = frozenset({CandidateInterviewStatus.INVITE_SENT})
# Such a summary is still being made, so that it is read again.
_UNFINISHED = frozenset({None, "processing"})
# A spreadsheet runs a cell that starts so as a formula, and candidates write these texts.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = Mapping[str, Any]


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "results", help="write the results of an interview to a file", allow_abbrev=False
    )
    parser.add_argument("--interview", required=True, metavar="ID", help="whose results")
    parser.add_argument(
        "--output",
        required=True,
        type=_output,
        metavar="FILE",
        help="its name ends in .csv or .jsonl; replaced only once all is written;"
        " - writes to standard output, CSV or with --json JSON Lines",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where Ctrl-C or a failure ended an export to the same file",
    )
    add_json(parser, "the counts as JSON; with --output - the rows, as JSON Lines")
    add_common(parser)
    parser.set_defaults(command=_run)


def _output(text: str) -> Path | None:
    if text == "-":
        return None
    path = Path(text)
    if path.suffix not in {".csv", ".jsonl"}:
        raise argparse.ArgumentTypeError("the file's name must end in .csv or .jsonl")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError("the folder of the file doesn't exist")
    return path


def _run(options: argparse.Namespace, output: Output) -> int:
    path: Path | None = options.output
    try:
        if path is None:
            count, failed = asyncio.run(_to_stdout(options, output))
        else:
            # A link stays one: its target is replaced.
            count, failed = asyncio.run(_to_file(options, real_path(path), output))
    except _ReaderLeftError:
        return ExitStatus.FAILURE
    except OSError as error:
        output.error(f"{path or 'Standard output'} can't be written: {error.strerror or error}")
        return ExitStatus.FAILURE
    if options.json and path is not None:
        output.json({"rows": count, "failed": failed, "output": str(path)})
    else:
        say = output.info if path is None else output.print
        many = "candidate interview" if count == 1 else "candidate interviews"
        unread = f", {failed} of them could not be read" if failed else ""
        say(f"{count} {many}{unread}: {path or 'standard output'}")
    return ExitStatus.FAILURE if failed else ExitStatus.OK


class _ReaderLeftError(Exception):
    """Standard output takes nothing more."""


async def _to_stdout(options: argparse.Namespace, output: Output) -> tuple[int, int]:
    lines = _Lines(output)
    write_row = _json_writer(lines) if options.json else _csv_writer(lines)

    def write(row: Row) -> None:
        write_row(row)
        if output.is_lost:
            raise _ReaderLeftError

    return await _export(options, write, output)


@frozen
class _Lines:
    """Standard output as a file that the csv module writes to."""

    _output: Output

    def write(self, line: str) -> None:
        """Write one record."""
        self._output.raw(line)


async def _to_file(options: argparse.Namespace, target: Path, output: Output) -> tuple[int, int]:
    """Write a file of its own beside the target, which it replaces once it is whole.

    The new file has the old one's mode; where there was none, its owner alone may read
    what candidates said.
    """
    done = _kept(target, options.interview) if options.resume else {}
    with replacing(target, new_mode=0o600) as file:
        write = _csv_writer(file) if target.suffix == ".csv" else _json_writer(file)
        with _progress_file(target, output) as keep:

            def write_and_keep(row: Row) -> None:
                write(row)
                keep(row)

            counts = await _export(options, write_and_keep, output, done)
    _progress_of(target).unlink(missing_ok=True)
    return counts


def _progress_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.progress.jsonl")


def _kept(target: Path, interview: str) -> dict[str, Row]:
    """Return the rows of an interview that an earlier export had read whole, by their ids."""
    try:
        lines = _progress_of(target).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    rows: dict[str, Row] = {}
    for line in lines:
        with contextlib.suppress(ValueError):  # the last line of an export that was killed
            row = json.loads(line)
            is_final = not row["error"] and row["summary_status"] not in _UNFINISHED
            if is_final and row["interview_id"] == interview:
                rows[row["candidate_interview_id"]] = row
    return rows


@contextlib.contextmanager
def _progress_file(target: Path, output: Output) -> Iterator[Callable[[Row], object]]:
    """Yield what keeps a row for ``--resume``; the file stays if the export ends early."""
    path = _progress_of(target)
    kept = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def keep(row: Row) -> None:
        # One write a row: exports at once append whole lines, and a killed one loses none.
        os.write(kept, f"{json.dumps(row)}\n".encode())

    try:
        yield keep
    except BaseException:
        if os.fstat(kept).st_size:
            output.info("The same command with --resume goes on from here.")
        else:
            path.unlink(missing_ok=True)
        raise
    finally:
        os.close(kept)


async def _export(
    options: argparse.Namespace,
    write: Callable[[Row], object],
    output: Output,
    done: Mapping[str, Row] = MappingProxyType({}),
) -> tuple[int, int]:
    """Write a row for each candidate interview; return how many, and how many failed.

    Results are read side by side at bulk priority; who has not started has none, and
    costs no request.
    """
    count = failed = finished = 0
    interview: str = options.interview
    async with connect(**connection(options)) as client:
        gather = client.with_options(priority="bulk")
        await check_interview(gather, interview)
        with output.err.status("reading the first page", spinner="line") as status:
            people: _People | None = None
            total: int | None = None

            def show(_: object) -> None:
                nonlocal finished
                finished += 1
                status.update(f"{finished} of {total or 'so many'} read")

            pages = gather.candidate_interviews.list(interview_id=interview).pages()
            async for page in pages:
                total = page.total
                people = people or await _People.of(gather, rows=page.total)
                tasks = [
                    asyncio.ensure_future(_row(gather, each, people, done)) for each in page.items
                ]
                for task in tasks:
                    task.add_done_callback(show)
                try:
                    for task in tasks:
                        row = await task
                        write(row)
                        count += 1
                        failed += bool(row["error"])
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
    return count, failed


async def _row(
    gather: GatherClient,
    invite: CandidateInterview,
    people: "_People",
    done: Mapping[str, Row],
) -> Row:
    """Read one result. A result that isn't there yet is no failure; a refused key ends all."""
    if invite.id in done and done[invite.id]["status"] == to_jsonable(invite.status):
        return done[invite.id]
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {
        "candidate_interview_id": invite.id,
        "candidate_id": invite.candidate_id,
        "interview_id": invite.interview_id,
        "status": to_jsonable(invite.status),
        "invite_sent_at": to_jsonable(invite.invite_sent_at),
    }
    is_started = invite.status not in _UNSTARTED
    try:
        row |= await people.names_of(invite.candidate_id, may_ask=is_started)
        if not is_started:
            return row
        found = await gather.candidate_interviews.results(invite.id)
        row |= evolve(found, extra={}).to_dict() | {"extra": to_jsonable(found.extra) or None}
    except NotFoundError:
        pass
    except (AuthenticationError, PermissionDeniedError):
        raise
    except GatherError as error:
        row["error"] = str(error)
    return row


@frozen
class _People:
    """Names and emails: from the list of candidates, or one by one where that costs less."""

    _gather: GatherClient
    _listed: Mapping[str, Candidate] | None

    @classmethod
    async def of(cls, gather: GatherClient, *, rows: int | None) -> "_People":
        """Read the list if its pages are fewer than the rows; costs one request at least."""
        first = await gather.candidates.list()
        per_page = max(1, len(first.items))
        pages = None if first.total is None else -(-first.total // per_page)
        if first.has_next and (pages is None or rows is None or pages > rows):
            return cls(gather, None)
        found = {each.id: each async for each in gather.candidates.list()}
        return cls(gather, found)

    async def names_of(self, id: str | None, *, may_ask: bool) -> Mapping[str, str | None]:
        """Return a candidate's names and email; nothing where they are not known for free."""
        person = None if id is None or self._listed is None else self._listed.get(id)
        if person is None and id is not None and self._listed is None and may_ask:
            person = await self._gather.candidates.get(id)
        if person is None:
            return {}
        return {
            "first_name": person.first_name,
            "last_name": person.last_name,
            "email": person.email,
        }


def _json_writer(file: "TextIO | _Lines") -> Callable[[Row], object]:
    return lambda row: file.write(json.dumps(row) + "\n")


def _csv_writer(file: "TextIO | _Lines") -> Callable[[Row], object]:
    writer = csv.writer(file)
    writer.writerow(_COLUMNS)
    return lambda row: writer.writerow([_cell(row[column]) for column in _COLUMNS])


def _cell(value: Any) -> str:
    """Return the text of a cell; what isn't text is JSON."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
