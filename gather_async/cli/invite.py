"""``invite FILE``: invite everyone in a file, once."""

import argparse
import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.text import Text

from gather_async.bulk import BulkInvite, InviteProgress, InviteReport, read_candidates
from gather_async.cli.context import (
    add_common,
    add_invite,
    add_json,
    connect,
    connection,
    count,
    format_error,
    status_of,
)
from gather_async.cli.output import ExitStatus, Output
from gather_async.client import GatherClient
from gather_async.errors import ConfigurationError, GatherError, InvalidRequestError, NotFoundError
from gather_async.phone import known_region

__all__ = ["add_to", "describe", "show_plan", "show_report", "watching"]

_REASONS = 10
_ROWS = 8


def show_plan(report: InviteReport, output: Output) -> None:
    """Write what the job would cost."""
    if report.plan is None:
        return
    plan = report.plan
    if plan.source is not None:
        output.print(f"The file was read as {plan.source}.")
    finish = plan.finish_at.astimezone().strftime("%a %d %b %H:%M")
    output.print(
        f"Nothing was sent. It would take at most {plan.requests} requests ({plan.writes} writes,"
        f" {plan.lookup_requests} look-ups) and {_duration(plan.duration)}, until {finish}."
    )


def _duration(time: timedelta) -> str:
    minutes = -(-time // timedelta(minutes=1))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _summary(report: InviteReport) -> dict[str, Any]:
    """Return the counts and the plan as JSON holds them, without personal data."""
    plan = report.plan
    return {
        "counts": {status.value: number for status, number in report.counts.items()},
        "unfinished": report.unfinished,
        "total": report.total,
        "requests": report.requests,
        "stopped": report.stopped,
        "plan": plan
        and {
            "requests": plan.requests,
            "writes": plan.writes,
            "lookup_requests": plan.lookup_requests,
            "seconds": plan.duration.total_seconds(),
            "finish_at": plan.finish_at.isoformat(),
        },
    }


def show_report(report: InviteReport, output: Output, *, counts: bool = True) -> None:
    """Write the counts, and why rows went wrong, without personal data."""
    if counts:
        for status, number in report.counts.items():
            if number:
                output.print(f"{number:>8}  {status.value.replace('_', ' ')}")
        if report.unfinished:
            output.print(f"{report.unfinished:>8}  unfinished")
        output.print(f"{report.total:>8}  rows, {report.requests} requests")
    for reason, rows in _reasons(report).items():
        lines = [line for _, line in rows if line is not None]
        where = f" ({_numbers('line', lines)})" if lines else ""
        shown = _numbers("row", [row for row, _ in rows])
        output.info(f"{shown}: {reason}{where}", style="yellow")


def _numbers(what: str, numbers: list[int]) -> str:
    """Return the first few numbers after a word."""
    more = f" and {len(numbers) - _ROWS} more" if len(numbers) > _ROWS else ""
    return f"{what}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:_ROWS]))}{more}"


def _reasons(report: InviteReport) -> dict[str, list[tuple[int, int | None]]]:
    """Return the rows and lines that went wrong, by why, for as many reasons as a person reads."""
    rows: dict[str, list[tuple[int, int | None]]] = {}
    for outcome in report.failures:
        reason = f"{outcome.status.value}: {outcome.reason}"
        if reason not in rows and len(rows) == _REASONS:
            reason = "for other reasons; --report lists them all"
        rows.setdefault(reason, []).append((outcome.row, outcome.line))
    return rows


# Seconds; a rate over less would be that of the first burst, which the quota soon ends.
_TELLING = 10.0


class _Bar(Progress):
    """A bar, and what it stands for below it, folded between words: no number is cut."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the lines."""
        yield from super().get_renderables()
        yield from (Text(task.description) for task in self.tasks)


@contextmanager
def watching(gather: GatherClient, output: Output) -> Iterator[Callable[[InviteProgress], None]]:
    """Yield a callback that moves a bar; on anything but a terminal it shows nothing."""
    if not output.is_watched:  # rich would write an empty line at the end
        yield lambda _: None
        return
    bar = _Bar(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.err,
        transient=True,
        expand=True,
    )
    with bar:
        task = bar.add_task("starting", total=None)

        def show(progress: InviteProgress) -> None:
            bar.update(
                task,
                completed=progress.done,
                total=progress.total,
                description=describe(progress, quota=gather.rate_limit_status.remaining),
            )

        yield show


def describe(progress: InviteProgress, *, quota: int) -> str:
    """Return counts, rate, quota left and finish time in one line."""
    counts = ", ".join(f"{count} {status.value}" for status, count in progress.counts.items())
    rate = ""
    if progress.elapsed >= _TELLING:
        rate = f"{60 * (progress.done - progress.earlier) / progress.elapsed:.0f}/min"
    finish = progress.finish_at.astimezone().strftime("%a %H:%M")
    parts = [counts, rate, f"quota {quota}", f"until {finish}"]
    return "  ".join(part for part in parts if part)


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "invite",
        help="invite everyone in a CSV or JSON Lines file, once",
        description="Create a candidate and send an invite for each row of a file."
        " With --journal, the same command goes on after any stop or crash.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "file", type=_existing, metavar="FILE", help="CSV, or JSON Lines (.jsonl); - is stdin"
    )
    add_invite(parser)
    parser.add_argument("--journal", metavar="PATH", help="remembers who was invited; keep it")
    parser.add_argument("--dry-run", action="store_true", help="check every row, send nothing")
    parser.add_argument(
        "--region", type=_region, metavar="US", help="where national phone numbers belong"
    )
    parser.add_argument("--encoding", type=_encoding, metavar="NAME", help="the file's, if known")
    parser.add_argument(
        "--column",
        type=_column,
        action="append",
        default=[],
        metavar="NAME=FIELD",
        help="what a column means, as Mobile=phone; without a field, ignore it",
    )
    parser.add_argument("--report", type=_report, metavar="OUT.csv", help="one line for each row")
    parser.add_argument(
        "--on-existing",
        choices=("reuse", "skip", "error"),
        default="reuse",
        help="what to do with people whom the server knows by their external id",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="try again what the server refused before"
    )
    parser.add_argument(
        "--other-key",
        action="store_true",
        help="go on with a journal of another API key of the same organization",
    )
    parser.add_argument(
        "--concurrency", type=count(1), default=16, metavar="N", help="rows at once; 16 by default"
    )
    add_json(parser, "the counts and the plan as one JSON document")
    add_common(parser)
    parser.set_defaults(command=_run)


def _existing(text: str) -> Path:
    path = Path(text)
    if text == "-" and sys.stdin is None:
        raise argparse.ArgumentTypeError("standard input is closed")
    if text != "-" and (path.is_dir() or not path.exists()):
        raise argparse.ArgumentTypeError("there is no such file")
    return path


def _report(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError("it is a folder, or its folder doesn't exist")
    return path


def _require_names_of_their_own(options: argparse.Namespace) -> None:
    """Refuse to write over the people, or over who of them was invited.

    Raises:
        InvalidRequestError: Two of the files are one.
    """
    files = {"FILE": options.file, "--journal": options.journal, "--report": options.report}
    given = [(name, Path(path)) for name, path in files.items() if path not in {None, Path("-")}]
    for (name, path), (other, its_path) in combinations(given, 2):
        if _is_one(path, its_path):
            raise InvalidRequestError(f"{other} would replace {name}: give it another name.")


def _is_one(path: Path, other: Path) -> bool:
    with suppress(OSError):
        return path.samefile(other)
    return path.absolute() == other.absolute()


def _encoding(text: str) -> str:
    try:
        read_candidates("-", encoding=text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _column(text: str) -> tuple[str, str | None]:
    name, _, field = text.rpartition("=")
    try:
        read_candidates("-", columns={name: field or None})
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not name:
        raise argparse.ArgumentTypeError("write the column, =, and the field")
    return name, field or None


def _region(text: str) -> str:
    try:
        return known_region(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(options: argparse.Namespace, output: Output) -> int:
    _require_names_of_their_own(options)
    if options.journal is None and not options.dry_run:
        output.info("Without --journal, a run that was stopped can't be continued.", style="yellow")
    return asyncio.run(_Invite(options, output).run())


@frozen
class _Invite:
    """One run of the command."""

    options: argparse.Namespace
    output: Output

    async def run(self) -> int:
        """Run the job to its end, or to the first Ctrl-C."""
        async with connect(
            default_region=self.options.region, **connection(self.options)
        ) as gather:
            with watching(gather, self.output) as watch:
                job = self._job(gather, watch)
                error = await self._ended(job)
            status = self._finish(job.report)
            if isinstance(error, asyncio.CancelledError):
                raise error
        if isinstance(error, GatherError):
            self.output.error(format_error(error))
            # What ends a job so is the interview: its people are looked for, or made.
            is_misspelt = isinstance(error, NotFoundError)
            return ExitStatus.USAGE if is_misspelt else status_of(error)
        if error is not None:
            self.output.error(f"The file or the journal can't be used: {error}")
        return status

    def _job(self, gather: GatherClient, watch: Any) -> BulkInvite:
        options = self.options
        return BulkInvite(
            gather,
            read_candidates(options.file, encoding=options.encoding, columns=dict(options.column)),
            interview_id=options.interview,
            delivery_types=options.via,
            expiry_days=options.expiry_days,
            external_redirect_uri=options.redirect_uri,
            journal=options.journal,
            concurrency=options.concurrency,
            on_progress=watch,
            dry_run=options.dry_run,
            on_existing=options.on_existing,
            retry_failed=options.retry_failed,
            other_key=options.other_key,
        )

    async def _ended(self, job: BulkInvite) -> BaseException | None:
        """Wait for the job, and return what ended it early, which is to be shown after the bar.

        Being cancelled lets requests on the wire end first.
        """

        async def run() -> InviteReport:
            return await job

        task = asyncio.create_task(run())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as cancelled:
            self.output.info("Stopping once what is on its way has ended; Ctrl-C again leaves now.")
            job.stop()
            await asyncio.wait({task})
            return cancelled
        except (GatherError, OSError, sqlite3.Error) as error:
            return error
        return None

    def _finish(self, report: InviteReport | None) -> ExitStatus:
        """Show what came of it and how to go on; return the exit status."""
        if report is None:
            return ExitStatus.FAILURE
        if self.options.json:
            self.output.json(_summary(report))
        else:
            show_plan(report, self.output)
        show_report(report, self.output, counts=not self.options.json)
        is_reported = self._write_report(report)
        if report.error is not None:
            self.output.error(f"Too many failures in a row. The last: {report.error}")
        if report.unfinished or report.stopped:
            self._info_resume()
        is_bad = report.rejected or report.failed or report.unfinished or report.stopped
        return ExitStatus.OK if is_reported and not is_bad else ExitStatus.FAILURE

    def _write_report(self, report: InviteReport) -> bool:
        """Write the report that was asked for; return False if that failed."""
        path = self.options.report
        if path is None:
            return True
        try:
            report.to_csv(path)
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or error
            self.output.error(f"The report can't be written to {path}: {why}")
            return False
        self.output.info(f"One line for each row: {path}")
        return True

    def _info_resume(self) -> None:
        if self.options.journal is None:
            self.output.info("There was no --journal, so nothing remembers who was invited here.")
        else:
            self.output.info(
                f"To go on, run the same command again with --journal {self.options.journal};"
                " each person is invited once."
            )
