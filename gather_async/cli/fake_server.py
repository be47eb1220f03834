"""``fake-server``: a fake Gather API to point any program at."""

import argparse
import asyncio
import contextlib
from typing import Any

from attrs import define, field

from gather_async.cli.context import (
    add_common,
    add_json,
    count,
    format_bind_error,
    host,
    port,
    seconds,
    secret_of,
    url,
)
from gather_async.cli.output import ExitStatus, Output
from gather_async.protocol.rolling_windows import DEFAULT_RATE_LIMITS
from gather_async.testing import FakeGather

__all__ = ["add_to"]

# Seconds between looks at what arrived: fast enough to watch, and no work to speak of.
_TICK = 0.1


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "fake-server",
        help="serve a fake Gather API on this machine",
        description="Serve a fake Gather API until Ctrl-C. Standard output gets two lines for the"
        " shell that use it, standard error a line for each request.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=port, default=0, metavar="N", help="any free one by default")
    parser.add_argument(
        "--host",
        type=host,
        default="127.0.0.1",
        help="127.0.0.1 by default, so that no other machine sees it; ::1 works",
    )
    parser.add_argument(
        "--edition", choices=("A", "B"), default="A", help="of the documentation; A by default"
    )
    parser.add_argument(
        "--audio-seconds",
        type=seconds,
        default=2.0,
        metavar="S",
        help="how long audio takes; 2 by default",
    )
    parser.add_argument(
        "--complete-after",
        type=seconds,
        metavar="S",
        help="finish each invited candidate's interview after so many seconds",
    )
    parser.add_argument(
        "--candidates", type=count(0), default=0, metavar="N", help="candidates to begin with"
    )
    parser.add_argument(
        "--webhook", type=url, metavar="URL", help="deliver events there, signed with --secret"
    )
    parser.add_argument(
        "--secret", metavar="SECRET", help="of the webhooks; GATHER_WEBHOOK_SECRET by default"
    )
    parser.add_argument(
        "--rate-limits", action="store_true", help="100 a minute and 1000 an hour, as documented"
    )
    parser.add_argument("--api-key", metavar="KEY", help="the only key it takes; made by default")
    parser.add_argument("--quiet", action="store_true", help="log no requests")
    add_json(parser, "one JSON object instead of the lines for the shell")
    add_common(parser, connects=False)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, output: Output) -> int:
    return asyncio.run(_serve(options, output))


async def _serve(options: argparse.Namespace, output: Output) -> int:
    """Serve until cancelled."""
    fake = FakeGather(
        port=options.port,
        host=options.host,
        edition=options.edition,
        audio_seconds=options.audio_seconds,
        rate_limits=DEFAULT_RATE_LIMITS if options.rate_limits else None,
        api_key=options.api_key,
    )
    if options.webhook is not None:
        fake.send_webhook_to(options.webhook, secret_of(options))
    fake.add_candidates(options.candidates)
    try:
        await fake.start()
    except OSError as error:
        output.error(format_bind_error(options.host, options.port, error))
        return ExitStatus.FAILURE
    try:
        _show(fake, options, output)
        await _watch(fake, options, output)
    finally:
        await fake.aclose()
    return ExitStatus.OK


def _show(fake: FakeGather, options: argparse.Namespace, output: Output) -> None:
    if options.json:
        output.json({"base_url": fake.base_url, "api_key": fake.api_key, "user_id": fake.user_id})
    else:
        output.print(f"export GATHER_BASE_URL={fake.base_url}")
        output.print(f"export GATHER_API_KEY={fake.api_key}")
    output.info(f"A user id for questions: {fake.user_id}. Ctrl-C ends the server.")


async def _watch(fake: FakeGather, options: argparse.Namespace, output: Output) -> None:
    """Log what was answered, and finish the interviews of who was invited, for ever."""
    loop, invites = asyncio.get_running_loop(), 0
    log = _RequestLog(fake, output, is_quiet=options.quiet)
    while True:
        log.print_answered()
        if options.complete_after is not None:
            for invite in fake.invite_log[invites:]:
                invites += 1
                if not invite.is_resend:
                    loop.call_later(
                        options.complete_after, _complete, fake, invite.candidate_interview_id
                    )
        await asyncio.sleep(_TICK)


def _complete(fake: FakeGather, candidate_interview: str) -> None:
    with contextlib.suppress(KeyError):  # hidden meanwhile
        fake.complete_interview(candidate_interview)


@define(eq=False)
class _RequestLog:
    """Prints a line for each request once it is answered; a quiet one only forgets it."""

    _fake: FakeGather
    _output: Output
    _is_quiet: bool = field(alias="is_quiet")
    _printed: set[int] = field(factory=set, init=False)

    def print_answered(self) -> None:
        """Print what was answered since the last call; forget all once all of it is."""
        requests = self._fake.requests
        for index, each in enumerate(requests):
            if index not in self._printed and (each.status or each.fault):
                self._printed.add(index)
                what = each.status or each.fault
                if not self._is_quiet:
                    self._output.info(f"{each.method} {each.path}: {what}", style="dim")
        if requests and len(self._printed) == len(requests):
            self._fake.clear_requests()
            self._printed.clear()
