"""``quickstart``: the documentation's five steps, from a question to a sent invite."""

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from attrs import frozen
from rich.status import Status

from gather_async.cli.context import add_common, add_json, connect, connection, has_key
from gather_async.cli.output import ExitStatus, Output
from gather_async.client import GatherClient
from gather_async.errors import AudioGenerationError, AudioTimeoutError, BadRequestError
from gather_async.models import NewCandidate
from gather_async.models.question import Question
from gather_async.testing import FakeGather

__all__ = ["add_to"]

_TITLE = "Software Engineer Interview"
# Title and script of each question. Source: quickstart
_QUESTIONS = (
    ("Tell me about yourself", "Tell me about yourself and your background."),
    ("Why are you interested in this role?", "Why are you interested in this position?"),
    ("What are your strengths?", "What do you consider to be your greatest strengths?"),
)
_AUDIO_WAIT = 120.0
# Long enough to be seen, short enough not to bore.
_FAKE_AUDIO_SECONDS = 0.8


def add_to(commands: Any) -> None:
    """Add the command to the program."""
    parser = commands.add_parser(
        "quickstart",
        help="run the five steps from a question to an invite; needs no key",
        description="Create three questions, an interview and a candidate, and send the invite."
        " Without GATHER_API_KEY all of it happens on a fake API inside this process.",
        allow_abbrev=False,
    )
    parser.add_argument("--email", default="john.doe@example.com", help="whom to invite")
    parser.add_argument("--phone", default="+1234567890", help="their phone number, E.164")
    parser.add_argument("--first-name", default="John", help="John by default")
    parser.add_argument("--last-name", default="Doe", help="Doe by default")
    parser.add_argument("--user-id", help="the creator of the questions, if the server wants one")
    parser.add_argument("--yes", action="store_true", help="don't ask before the real invite")
    add_json(parser, "one JSON object for each step, instead of a line of text")
    add_common(parser)
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace, output: Output) -> int:
    candidate = NewCandidate(options.first_name, options.last_name, options.email, options.phone)
    if has_key() and not options.yes:
        refused = _ask(candidate, output)
        if refused is not None:
            return refused
    return asyncio.run(_connected(candidate, options, output))


def _ask(candidate: NewCandidate, output: Output) -> ExitStatus | None:
    """Ask for leave to invite a real person; None is a yes."""
    output.info(
        "GATHER_API_KEY is set: this creates three questions, an interview and a candidate"
        f" in your organization, and sends a real invite to {candidate.email}."
    )
    try:
        answer = output.ask("Go on? [y/N] ")
    except EOFError:
        output.error("\nThere was no answer, so nothing was sent; --yes goes on without asking.")
        return ExitStatus.USAGE
    if answer.strip().lower() in {"y", "yes"}:
        return None
    output.info("Nothing was sent.")
    return ExitStatus.FAILURE


async def _connected(candidate: NewCandidate, options: argparse.Namespace, output: Output) -> int:
    """Run the steps against the real server, or a fake one where there is no key."""
    async with AsyncExitStack() as stack:
        if has_key():
            client = connect(user_id=options.user_id, **connection(options))
        else:
            fake = await stack.enter_async_context(FakeGather(audio_seconds=_FAKE_AUDIO_SECONDS))
            (output.info if options.json else output.print)(
                f"No GATHER_API_KEY: a fake Gather API on {fake.base_url} answers,"
                " and nothing leaves this machine."
            )
            client = GatherClient(
                fake.api_key, base_url=fake.base_url, user_id=options.user_id or fake.user_id
            )
        gather = await stack.enter_async_context(client)
        status = stack.enter_context(output.err.status("", spinner="line"))
        await _Steps(gather, output, status, is_json=options.json).run(candidate)
    return ExitStatus.OK


@frozen
class _Steps:
    """The five steps; each prints its ids as soon as it has them."""

    gather: GatherClient
    output: Output
    status: Status
    is_json: bool

    async def run(self, candidate: NewCandidate) -> None:
        """Run them in order. The first failure ends them; what was created stays."""
        first = await self._questions("1/5 Create the first question", _QUESTIONS[:1])
        others = await self._questions("2/5 Create two more questions", _QUESTIONS[1:])
        await self._audio([*first, *others])
        self.status.update("3/5 Create the interview ...")
        interview = await self.gather.interviews.create(
            title=_TITLE,
            display_name=_TITLE,
            interview_type="standard",
            question_ids=[question.id for question in (*first, *others)],
        )
        self._show("3/5 Create the interview", "interview", interview.id)
        self.status.update("4/5 Create the candidate ...")
        created = await self.gather.candidates.create(candidate)
        self._show("4/5 Create the candidate", "candidate", created.id)
        self.status.update("5/5 Send the invite ...")
        invite = await self.gather.candidate_interviews.create(
            candidate_id=created.id,
            interview_id=interview.id,
            send_invite=True,
            delivery_types=["email"],
        )
        self._show("5/5 Send the invite", "candidate interview", invite.id)
        say = self.output.info if self.is_json else self.output.print
        say("Done: the invite is on its way by email.", style="bold green")

    def _show(self, step: str, kind: str, id: str) -> None:
        if self.is_json:
            self.output.json({"step": step.strip(), "object": kind, "id": id})
        else:
            self.output.print(f"{step:<29}  {id}")

    async def _questions(
        self, step: str, questions: Sequence[tuple[str, str]]
    ) -> Sequence[Question]:
        """Create questions one after another, in the order the interview asks them."""
        made = []
        for title, script in questions:
            self.status.update(f"{step} ...")
            try:
                question = await self.gather.questions.create(
                    title=title, question_script=script, generate_audio=True
                )
            except BadRequestError as error:
                if "userid" in f"{error.message}{error.details}".lower():
                    error.add_note(
                        "The server wants a creator: pass --user-id;"
                        " `gather-async list users` shows who there is."
                    )
                raise
            self._show(step, "question", question.id)
            made.append(question)
        return made

    async def _audio(self, questions: Sequence[Question]) -> None:
        """Wait for the narrator; an interview can be made without, so failing is no reason to end.

        Source: quickstart, common issues
        """
        left = len(questions)
        self.status.update(f"    Wait for the audio of {left} questions ...")
        try:
            async for ended in self.gather.questions.wait_until_all_audio_ready(
                questions, timeout=_AUDIO_WAIT
            ):
                left -= 1
                self.status.update(f"    Wait for the audio of {left} more ...")
                if isinstance(ended, AudioGenerationError):
                    self._show("    Audio failed", "question", ended.question.id)
                else:
                    self._show("    Audio is ready", "question", ended.id)
        except AudioTimeoutError:
            self.output.info(f"    The audio of {left} is still being made; going on.")
