"""Each command, run for real against FakeGather."""

import asyncio
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from attrs import frozen

from gather_async import GatherClient
from gather_async.cli import main
from gather_async.cli.app import _parser
from gather_async.cli.fake_server import _RequestLog
from gather_async.cli.output import Output, Stream
from gather_async.clock import SystemClock, Timer
from gather_async.protocol.rolling_windows import DEFAULT_RATE_LIMITS
from gather_async.testing import FakeGather
from gather_async.webhooks import SQLiteInbox


@frozen
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Awaitable[Done]]


@pytest.fixture
def fast_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second of the machine be twenty: commands poll audio, and pause before they retry."""

    def later(self: SystemClock, seconds: float, call: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds / 20, call)

    monkeypatch.setattr(SystemClock, "monotonic", staticmethod(lambda: 20 * time.monotonic()))
    monkeypatch.setattr(SystemClock, "sleep", lambda self, seconds: asyncio.sleep(seconds / 20))
    monkeypatch.setattr(SystemClock, "call_later", later)


@pytest.fixture
def run(
    fast_time: None,
    fake_gather: FakeGather,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command in another thread, with the fake as its server."""
    monkeypatch.setenv("GATHER_API_KEY", fake_gather.api_key)
    monkeypatch.setenv("GATHER_BASE_URL", fake_gather.base_url)

    async def run(*argv: str) -> Done:
        status = await asyncio.to_thread(main, argv)
        shown = capsys.readouterr()
        return Done(status, shown.out, shown.err)

    return run


@pytest.fixture
async def invited(fake_gather: FakeGather, gather_client: GatherClient) -> list[str]:
    """Return the ids of three candidate interviews of one interview."""
    interview = await gather_client.interviews.create(title="I", interview_type="standard")
    ids = []
    for name in ("Ada", "Bob", "Cy"):
        candidate = await gather_client.candidates.create(
            first_name=name,
            last_name="Doe",
            email=f"{name}@example.com",
            phone="+1234567890",
            external_id=f"ats-{name}",
        )
        made = await gather_client.candidate_interviews.create(
            candidate_id=candidate.id,
            interview_id=interview.id,
            send_invite=True,
            delivery_types=["email"],
        )
        ids.append(made.id)
    return ids


def _started(*argv: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own, without a key, as if Ctrl-C could reach it."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("GATHER_")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "gather_async", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    )


def test_quickstart_without_a_key_runs_all_five_steps() -> None:
    """Without a key the five steps run on the built-in fake, which one line says."""
    with _started("quickstart") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert "fake Gather API on http://127.0.0.1:" in lines[0]
    steps = [line[:3] for line in lines if "/5 " in line]
    assert steps == ["1/5", "2/5", "2/5", "3/5", "4/5", "5/5"]
    assert len({line[-36:] for line in lines if "/5 " in line}) == 6
    assert sum("Audio is ready" in line for line in lines) == 3
    # A terminal of 80 columns folds none of the ids.
    assert max(len(line) for line in lines[1:]) <= 80


def test_ctrl_c_ends_the_quickstart_cleanly() -> None:
    """Ctrl-C gives 130 and one line, no traceback."""
    with _started("quickstart") as process:
        assert process.stdout is not None
        assert "fake Gather API" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "Stopped.")


def test_the_fake_server_serves_until_ctrl_c() -> None:
    """The fake server prints what a shell needs, and serves the quickstart."""
    options = ("--rate-limits", "--edition", "B", "--api-key", "qapi_mine")
    with _started("fake-server", *options) as process:
        assert process.stdout is not None
        url, key = (process.stdout.readline().strip() for _ in range(2))
        assert url.startswith("export GATHER_BASE_URL=http://127.0.0.1:")
        assert key == "export GATHER_API_KEY=qapi_mine"

        async def status() -> int:
            client = GatherClient(key.partition("=")[2], base_url=url.partition("=")[2])
            async with client as gather:
                await gather.teams.list()
                return gather.rate_limit_status.remaining

        assert asyncio.run(status()) == 99
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "Stopped."


async def test_a_blank_key_is_reported(run: Run) -> None:
    """A key that no client could send gives one line that names it."""
    done = await run("fake-server", "--api-key", " ")
    assert done.status != 0
    assert len(done.err.splitlines()) == 1
    assert "api_key" in done.err


async def test_a_taken_port_is_reported(run: Run, fake_gather: FakeGather) -> None:
    """A port that is in use gives one line and 1."""
    done = await run("fake-server", "--port", fake_gather.base_url.rpartition(":")[2])
    assert done.status == 1
    assert "Choose another --port." in done.err


async def test_quickstart_with_a_key_asks_first(
    run: Run, fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key nothing at all is sent until someone says yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    done = await run("quickstart", "--email", "ada@example.org")
    assert (done.status, fake_gather.requests) == (1, ())
    assert "ada@example.org" in done.err
    assert "Nothing was sent." in done.err


async def test_quickstart_does_not_take_silence_for_a_yes(
    run: Run, fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without anybody to ask, nothing is sent, and --yes is named."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    done = await run("quickstart")
    assert (done.status, fake_gather.requests) == (2, ())
    assert "--yes" in done.err


@pytest.mark.parametrize("answer", ["y\n", "YES\n", None])
async def test_quickstart_with_leave_invites(
    run: Run, fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    """A yes, typed or given by --yes, sends one invite to whom the options say."""
    monkeypatch.setattr("sys.stdin", io.StringIO(answer or ""))
    options = ["--user-id", fake_gather.user_id, "--phone", "+1 (202) 555-0123"]
    done = await run("quickstart", *options, *([] if answer else ["--yes"]))
    assert done.status == 0, done.err
    assert [person["phone"] for person in fake_gather.candidates] == ["+12025550123"]
    assert fake_gather.invites.total() == 1
    assert fake_gather.candidate_interviews[0]["id"] in done.out


async def test_quickstart_refuses_a_bad_phone_number_before_anything_is_sent(
    run: Run, fake_gather: FakeGather
) -> None:
    """A number that can't be E.164 is wrong usage, and isn't repeated."""
    done = await run("quickstart", "--yes", "--phone", "555-0123")
    assert (done.status, fake_gather.requests) == (2, ())
    assert "555-0123" not in done.out + done.err


async def test_quickstart_says_when_the_server_wants_a_creator(run: Run) -> None:
    """Where the server demands userId, the option that gives one is named."""
    done = await run("quickstart", "--yes")
    assert done.status == 1
    assert "--user-id" in done.err


async def test_quickstart_goes_on_without_audio(
    run: Run, fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed narration is shown, and the interview made nonetheless."""
    async with FakeGather(
        fail_audio_for=["What are your strengths?"], port=0, api_key=fake_gather.api_key
    ) as fake:
        monkeypatch.setenv("GATHER_BASE_URL", fake.base_url)
        done = await run("quickstart", "--yes", "--user-id", fake.user_id)
    assert done.status == 0
    assert done.out.count("Audio failed") == 1
    assert done.out.count("Audio is ready") == 2


async def test_list_prints_a_line_an_item(run: Run, invited: list[str]) -> None:
    """Into a pipe, each item is a line with tabs, the id first."""
    done = await run("list", "candidate-interviews")
    assert done.status == 0
    assert [line.split("\t")[0] for line in done.out.splitlines()] == invited
    assert done.err == "candidate-interviews: 3 listed\n"


async def test_list_prints_json_lines(run: Run, invited: list[str]) -> None:
    """With --json each line is an object; --limit stops early."""
    done = await run("list", "candidate-interviews", "--json", "--limit", "2")
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == invited[:2]


@pytest.mark.parametrize(
    ("resource", "conditions", "count"),
    [
        ("candidates", ["external_id=ats-Bob"], 1),
        ("candidates", ["external_id=ats-Bob", "archived=true"], 1),
        ("candidates", ["archived=no"], 3),
        ("questions", ["page=2"], 0),
        ("users", ["include_teams=false"], 1),
    ],
)
@pytest.mark.usefixtures("invited")
async def test_list_filters(run: Run, resource: str, conditions: list[str], count: int) -> None:
    """--where takes the list's own filters, with true and false as such."""
    where = [word for condition in conditions for word in ("--where", condition)]
    done = await run("list", resource, *where)
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) == count


@pytest.mark.parametrize(
    ("resource", "condition", "words"),
    [
        ("candidates", "colour=red", "external_id, archived"),
        ("candidates", "archived", "NAME=VALUE"),
        ("candidates", "archived=maybe", "true or false"),
        ("narrators", "name=Ada", "none"),
        ("questions", "title", "server's own names"),
    ],
)
async def test_list_refuses_a_filter_that_is_none(
    run: Run, fake_gather: FakeGather, resource: str, condition: str, words: str
) -> None:
    """A filter that the list doesn't have is wrong usage; nothing is sent."""
    done = await run("list", resource, "--where", condition)
    assert (done.status, fake_gather.requests) == (2, ())
    assert words in done.err


async def test_get_prints_json(run: Run, invited: list[str]) -> None:
    """One object comes as JSON, dates and all."""
    done = await run("get", "candidate-interviews", invited[0])
    found = json.loads(done.out)
    assert (found["id"], found["status"]) == (invited[0], "invite_sent")


async def test_a_missing_object_is_a_failure(run: Run) -> None:
    """404 gives 1, with the request id for the vendor's support."""
    done = await run("get", "candidates", "absent")
    assert (done.status, done.out) == (1, "")
    assert "request id" in done.err


async def test_a_refused_key_is_an_authentication_failure(
    run: Run, fake_gather: FakeGather
) -> None:
    """401 gives 3, and the key is shown nowhere."""
    fake_gather.revoke_key()
    done = await run("list", "candidates")
    assert (done.status, done.out) == (3, "")
    assert "GATHER_API_KEY" in done.err
    assert fake_gather.api_key not in done.err


async def test_wait_audio_shows_each_end(
    run: Run, fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question gets a line; one failure makes the whole a failure."""
    async with FakeGather(fail_audio_for=["bad"], api_key=fake_gather.api_key) as fake:
        monkeypatch.setenv("GATHER_BASE_URL", fake.base_url)
        async with fake.client() as gather:
            made = [
                await gather.questions.create(
                    title=title, question_script="?", generate_audio=True, user_id=fake.user_id
                )
                for title in ("good", "bad")
            ]
        good = await run("wait-audio", made[0].id)
        both = await run("wait-audio", *(question.id for question in made))
    assert (good.status, good.out.split("\t")[:2]) == (0, [made[0].id, "ready"])
    assert both.status == 1
    ends = dict(line.split("\t")[:2] for line in both.out.splitlines())
    assert ends == {made[0].id: "ready", made[1].id: "failed"}


async def test_wait_audio_shows_what_is_late(
    run: Run, fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What isn't over in time is late, and that is a failure."""
    async with FakeGather(audio_seconds=1e9, api_key=fake_gather.api_key) as fake:
        monkeypatch.setenv("GATHER_BASE_URL", fake.base_url)
        async with fake.client() as gather:
            question = await gather.questions.create(
                title="slow", question_script="?", generate_audio=True, user_id=fake.user_id
            )
        done = await run("wait-audio", question.id, "--timeout", "0")
    assert (done.status, done.out) == (1, f"{question.id}\tlate\t\n")


@pytest.fixture
def finished(fake_gather: FakeGather, invited: list[str]) -> list[str]:
    """Return the ids of three candidate interviews that are finished."""
    for each in invited:
        fake_gather.complete_interview(each)
    return invited


async def test_results_are_written_as_csv(
    run: Run, fake_gather: FakeGather, finished: list[str], tmp_path: Path
) -> None:
    """Each candidate interview is a row with its person, in the order of the list."""
    interview = str(fake_gather.interviews[0]["id"])
    done = await run("results", "--interview", interview, "--output", str(tmp_path / "r.csv"))
    assert done.status == 0
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["candidate_interview_id"] for row in rows] == finished
    assert [row["first_name"] for row in rows] == ["Ada", "Bob", "Cy"]
    assert rows[0]["email"] == "Ada@example.com"
    assert all(row["summary_status"] for row in rows)
    assert {row["error"] for row in rows} == {""}
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


async def test_who_has_not_started_costs_no_request(
    run: Run, fake_gather: FakeGather, invited: list[str], tmp_path: Path
) -> None:
    """The list shows who was only invited; results are asked for of the others alone."""
    fake_gather.complete_interview(invited[1])
    fake_gather.clear_requests()
    interview = str(fake_gather.interviews[0]["id"])
    done = await run("results", "--interview", interview, "--output", str(tmp_path / "r.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert done.status == 0
    assert [bool(row["summary_status"]) for row in rows] == [False, True, False]
    asked = [each.path for each in fake_gather.requests if each.path.endswith("/results")]
    assert asked == [f"/qsi/gather/candidate-interviews/{invited[1]}/results"]


async def test_an_export_goes_on_where_it_ended(
    run: Run,
    fake_gather: FakeGather,
    gather_client: GatherClient,
    finished: list[str],
    tmp_path: Path,
) -> None:
    """With --resume only what was not read yet is read, and nothing is left beside the file."""
    for each in finished:
        await gather_client.candidate_interviews.wait_until_summarized(each)
    interview = str(fake_gather.interviews[0]["id"])
    command = ("results", "--interview", interview, "--output", str(tmp_path / "r.jsonl"))
    path = f"/qsi/gather/candidate-interviews/{finished[2]}/results"
    fake_gather.fail_next(403, path=path)
    assert (await run(*command)).status == 3
    assert not (tmp_path / "r.jsonl").exists()
    fake_gather.clear_requests()
    assert (await run(*command, "--resume")).status == 0
    asked = [each.path for each in fake_gather.requests if each.path.endswith("/results")]
    assert asked == [path]
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["candidate_interview_id"] for row in rows] == finished
    assert [each.name for each in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.usefixtures("finished")
async def test_an_export_shows_each_person_that_was_read(
    run: Run, fake_gather: FakeGather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal sees how many of how many were read; a log file sees the count alone."""
    interview = str(fake_gather.interviews[0]["id"])
    command = ("results", "--interview", interview, "--output", str(tmp_path / "r.csv"))
    assert "read" not in (await run(*command)).err
    monkeypatch.setattr(Stream, "isatty", lambda _: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    counts = list[str]()
    # What is drawn is what came last when the line is drawn anew, which time decides.
    monkeypatch.setattr("rich.status.Status.update", lambda _, text: counts.append(text))
    shown = await run(*command)
    assert "reading the first page" in shown.out + shown.err
    assert counts == ["1 of 3 read", "2 of 3 read", "3 of 3 read"]


@pytest.mark.usefixtures("finished")
async def test_an_export_keeps_mode_and_link(
    run: Run, fake_gather: FakeGather, tmp_path: Path
) -> None:
    """A new file is its owner's alone; a replaced one keeps its mode, and a link its target."""
    interview = str(fake_gather.interviews[0]["id"])
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to("real.csv")
    for output in (link, tmp_path / "new.csv"):
        done = await run("results", "--interview", interview, "--output", str(output))
        assert done.status == 0
    assert link.is_symlink()
    assert len(real.read_text().splitlines()) == 4
    assert real.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "new.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("finished")
async def test_an_export_may_go_to_standard_output(run: Run, fake_gather: FakeGather) -> None:
    """With - the rows go to standard output, and the count beside them."""
    interview = str(fake_gather.interviews[0]["id"])
    done = await run("results", "--interview", interview, "--output", "-")
    assert done.status == 0
    assert len(list(csv.DictReader(io.StringIO(done.out)))) == 3
    assert "3 candidate interviews" in done.err


async def test_an_interview_that_does_not_exist_touches_no_file(run: Run, tmp_path: Path) -> None:
    """A misspelt id is wrong usage, not an empty export."""
    output = tmp_path / "r.csv"
    output.write_text("old")
    done = await run("results", "--interview", "misspelt", "--output", str(output))
    assert done.status == 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"r.csv": "old"}


@pytest.mark.usefixtures("finished")
async def test_one_unreadable_result_does_not_stop_the_rest(
    run: Run, fake_gather: FakeGather, tmp_path: Path
) -> None:
    """A result that makes no sense is a row with an error, and the exit status says so."""
    fake_gather.html_next(200, path="/qsi/gather/candidate-interviews/*/results")
    interview = str(fake_gather.interviews[0]["id"])
    done = await run("results", "--interview", interview, "--output", str(tmp_path / "r.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert (done.status, len(rows)) == (1, 3)
    assert sum(bool(row["error"]) for row in rows) == 1


@pytest.mark.usefixtures("finished")
async def test_results_that_do_not_exist_yet_are_no_failure(
    run: Run, fake_gather: FakeGather, tmp_path: Path
) -> None:
    """404 for results means that there are none yet."""
    path = "/qsi/gather/candidate-interviews/*/results"
    fake_gather.fail_next(404, times=3, path=path)
    interview = str(fake_gather.interviews[0]["id"])
    done = await run("results", "--interview", interview, "--output", str(tmp_path / "r.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert done.status == 0
    assert [(row["summary_status"], row["error"]) for row in rows] == [(None, None)] * 3


@pytest.mark.usefixtures("finished")
async def test_a_failed_export_leaves_the_old_file(
    run: Run, fake_gather: FakeGather, tmp_path: Path
) -> None:
    """The file is replaced only by a whole one, and no part of one is left behind."""
    output = tmp_path / "r.csv"
    output.write_text("old")
    fake_gather.fail_next(403, times=3, path="/qsi/gather/candidate-interviews/*/results")
    interview = str(fake_gather.interviews[0]["id"])
    done = await run("results", "--interview", interview, "--output", str(output))
    assert done.status == 3
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"r.csv": "old"}


@pytest.mark.usefixtures("invited")
async def test_an_unwritable_output_is_reported(
    run: Run, fake_gather: FakeGather, tmp_path: Path
) -> None:
    """A file that can't be made gives one line and 1."""
    interview = str(fake_gather.interviews[0]["id"])
    (tmp_path / "r.csv").mkdir()
    done = await run("results", "--interview", interview, "--output", str(tmp_path / "r.csv"))
    assert done.status == 1
    assert "can't be written" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("create question --title T --script x", "create question: error: .*--question-script?"),
        ("list users --limt=3", "list: error: .*: did you mean --limit?"),
        ("list users --wholly-else", "list: error: unrecognized arguments: --wholly-else\n"),
        ("--nope doctor", "gather-async: error: unrecognized arguments: --nope"),
        ("help statsu", "gather-async: error: .*: did you mean status?"),
        ("statsu", "gather-async: error: .*: did you mean status?"),
        ("list Candidate", "list: error: .*: did you mean candidates?"),
        ("get narrator x", "get: error: .*: did you mean narrators?"),
        ("webhooks snd", "webhooks: error: .*: did you mean send?"),
        ("completion zs", "completion: error: .*: did you mean zsh?"),
        ("help zzz", "gather-async: error: .*'completion'\\)\n|completion\\)\n"),
    ],
)
async def test_an_unknown_option_is_told_by_its_command(
    run: Run, arguments: str, said: str
) -> None:
    """The command's own usage is shown, not the program's, and the option that is nearest."""
    done = await run(*arguments.split())
    assert done.status == 2
    assert re.search(said.replace("?", r"\?"), done.err)


async def test_the_doctor_finds_nothing_wrong(run: Run) -> None:
    """A working set-up gives a line for each thing that was checked, and 0."""
    done = await run("doctor")
    marks = [line.split() for line in done.out.splitlines()]
    assert done.status == 0
    assert {mark[0] for mark in marks} == {"ok"}
    known = ["version", "python", "key", "server", "proxy", "CA", "request", "quota", "clock"]
    assert [mark[1] for mark in marks] == known


async def test_the_doctor_finds_a_refused_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without the usual prefix is a warning; a refused one gives 3; no key is shown."""
    monkeypatch.setenv("GATHER_API_KEY", "org:hush")
    done = await run("doctor")
    assert done.status == 3
    assert "hush" not in done.out + done.err
    marks = {line.split()[1]: line.split()[0] for line in done.out.splitlines()}
    assert (marks["key"], marks["request"]) == ("warning", "FAILED")


async def test_the_doctor_shows_the_proxy_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands between this machine and the server is named; a failure says who refused."""
    monkeypatch.setenv("GATHER_BASE_URL", "https://gather.invalid")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@127.0.0.1:1")
    done = await run("doctor")
    assert done.status == 1
    assert "http://127.0.0.1:1, from the environment" in done.out
    assert "https://gather.invalid" in done.out
    assert "hush" not in done.out + done.err


async def test_the_doctor_finds_missing_certificates(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of certificates that isn't there is named before a request fails for it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    done = await run("doctor")
    assert f"warning  CA           {tmp_path / 'absent.pem'} doesn't exist" in done.out


@pytest.mark.usefixtures("invited")
async def test_the_words_that_a_server_allows_are_shown_once(
    run: Run, fake_gather: FakeGather
) -> None:
    """The server's message, its reason and its details are one thing, said once."""
    link = str(fake_gather.candidate_interviews[0]["id"])
    done = await run("status", link, "--set", "foo")
    assert (done.status, done.err.count("partially_completed")) == (1, 1)
    assert '"field": "status"' in done.err


async def test_the_servers_details_are_shown_in_place_of_a_hint(run: Run) -> None:
    """A person at a terminal has no attributes to look at."""
    done = await run("create", "question", "--title", "", "--user-id", "u")
    assert done.status == 1
    assert '"field": "title"' in done.err
    assert "`.details`" not in done.err


async def test_the_doctor_finds_a_wrong_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that can't be used is a setting to mend."""
    monkeypatch.setenv("GATHER_BASE_URL", "http://gather.example")
    done = await run("doctor")
    assert done.status == 2
    assert done.out.count("FAILED   settings") == done.out.count("FAILED") == 1


async def test_objects_are_created_from_the_command_line(
    run: Run, fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each `create` prints the id alone, or with --json the object; fields arrive as given."""
    monkeypatch.setenv("GATHER_USER_ID", fake_gather.user_id)
    question = await run("create", "question", "--title", "Q", "--question-script", "?")
    interview = await run(
        *("create", "interview", "--title", "I", "--question-ids", question.out.strip()),
    )
    names = ("--first-name", "Zo\u00eb", "--last-name", "Doe", "--email", "zoe@example.com")
    person = await run("create", "candidate", *names, "--phone", "+12025550123", "--json")
    assert (question.status, interview.status, person.status) == (0, 0, 0)
    assert [each["id"] for each in fake_gather.questions] == [question.out.strip()]
    (made,) = fake_gather.interviews
    assert (made["id"], [each["id"] for each in made["questions"]]) == (
        interview.out.strip(),
        [question.out.strip()],
    )
    assert json.loads(person.out)["id"] == fake_gather.candidates[0]["id"]
    assert fake_gather.candidates[0]["firstName"] == "Zo\u00eb"


async def test_one_person_is_invited_once(run: Run, fake_gather: FakeGather) -> None:
    """The same command again finds the person and the invite; sending stays at one."""
    interview = (await run("create", "interview", "--title", "I")).out.strip()
    names = ("--first-name", "Ada", "--last-name", "Doe", "--email", "ada@example.com")
    person = (*names, "--phone", "+12025550123", "--external-id", "ats-1")
    first = await run("invite-one", "--interview", interview, *person)
    again = await run("invite-one", "--interview", interview, *person)
    assert (first.status, again.status, first.out) == (0, 0, again.out)
    assert (len(fake_gather.candidates), fake_gather.invites.total()) == (1, 1)
    candidate, link, status = first.out.split()
    assert (candidate, status) == (fake_gather.candidates[0]["id"], "invite_sent")
    assert link == fake_gather.candidate_interviews[0]["id"]


@pytest.mark.parametrize("command", ["invite-one", "status"])
async def test_a_misspelt_interview_is_wrong_usage(
    run: Run, fake_gather: FakeGather, command: str
) -> None:
    """It is found out before a person is created for nothing."""
    names = ("--first-name", "Ada", "--last-name", "Doe", "--email", "ada@example.com")
    person = (*names, "--phone", "+12025550123") if command == "invite-one" else ()
    done = await run(command, "--interview", "misspelt", *person)
    assert (done.status, done.err) == (2, "There is no interview misspelt.\n")
    assert not fake_gather.candidates


async def test_status_shows_sets_and_counts(
    run: Run, fake_gather: FakeGather, invited: list[str]
) -> None:
    """One command for the status of an invite, of everyone in an interview, and of the quota."""
    interview = str(fake_gather.interviews[0]["id"])
    changed = await run("status", invited[0], "--set", "hired")
    shown = await run("status", invited[0], invited[1], "--json")
    counted = await run("status", "--interview", interview)
    quota = await run("status", "--json")
    assert changed.out.split("\t")[:2] == [invited[0], "hired"]
    statuses = [json.loads(line)["status"] for line in shown.out.splitlines()]
    assert statuses == ["hired", "invite_sent"]
    assert counted.out.splitlines() == ["invite_sent\t2", "hired\t1"]
    windows = json.loads(quota.out)["quota"]["windows"]
    assert [(each["limit"], each["period"]) for each in windows] == [(100, 60), (1000, 3600)]


async def test_the_server_can_be_named_on_the_command_line(
    run: Run, fake_gather: FakeGather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--base-url wins over the environment, and an empty one isn't production."""
    monkeypatch.setenv("GATHER_BASE_URL", "http://127.0.0.1:1")
    good = await run("list", "teams", "--base-url", fake_gather.base_url)
    assert (good.status, len(good.out.splitlines())) == (0, 1)
    empty = await run("list", "teams", "--base-url", "")
    assert (empty.status, empty.err) == (2, "--base-url is empty: name a server.\n")
    clear = await run("list", "teams", "--base-url", "http://gather.example")
    assert clear.status == 2
    assert "--allow-insecure" in clear.err
    assert "allow_insecure=True" not in clear.err


@pytest.mark.parametrize("way", ["-v", "GATHER_LOG"])
async def test_a_command_logs_its_requests_if_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """-v and GATHER_LOG=debug show each request on standard error; without them none is."""
    assert "GET " not in (await run("list", "teams")).err
    if way == "GATHER_LOG":
        monkeypatch.setenv("GATHER_LOG", "debug")
    done = await run("list", "teams", *([] if way == "GATHER_LOG" else ["-v"]))
    assert done.status == 0
    assert done.err.count("GET /qsi/gather/teams") == 1
    assert "GET " not in done.out


async def test_the_proxy_can_be_named_on_the_command_line(run: Run) -> None:
    """--proxy is used whatever the environment says, and isn't ignored where it can't be."""
    done = await run(
        *("list", "teams", "--proxy", "http://127.0.0.1:1", "--base-url", "https://gather.invalid")
    )
    assert done.status == 1
    assert "the proxy can't be reached" in done.err
    assert (await run("list", "teams", "--proxy", "http://127.0.0.1:1")).status == 2


@pytest.mark.fake_gather(rate_limits=DEFAULT_RATE_LIMITS)
async def test_the_probe_describes_the_server_without_personal_data(
    run: Run,
    fake_gather: FakeGather,
    gather_client: GatherClient,
    finished: list[str],
    tmp_path: Path,
) -> None:
    """The file has what the documentation leaves open, and no value of a person's or of text."""
    await gather_client.candidate_interviews.wait_until_summarized(finished[0])
    await gather_client.questions.create(
        title="Hidden title", question_script="?", generate_audio=True, user_id=fake_gather.user_id
    )
    await gather_client.interviews.create(title="Another", interview_type="standard")
    done = await run("doctor", "--probe", str(tmp_path / "probe.json"))
    assert done.status == 0, done.out
    text = (tmp_path / "probe.json").read_text()
    for secret in ("Ada", "example.com", "234567890", "Hidden", fake_gather.api_key, *finished):
        assert secret not in text
    report = json.loads(text)
    seen = {
        (each["path"].removeprefix("/qsi/gather/"), each["status"]): each
        for each in report["responses"]
    }
    assert seen["questions", 200]["body"]["data"]["questions"]["each"]["transcriptionStatus"]
    candidates = seen["candidates", 200]
    assert candidates["body"]["meta"]["pagination"]["total"] == "number 3"
    assert candidates["query"] == {"pageSize": 2}
    assert "oldest first" in " ".join(seen["interviews", 200]["sorted_by"])
    assert seen["candidates/ID", 404]["body"]["error"]["code"] == "word NOT_FOUND"
    assert seen["interviews", 400]["body"]["error"]["code"] == "word VALIDATION_ERROR"
    assert seen["narrators", 400]["query"] == {"unknown": "1"}
    assert seen["interviews", 200]["headers"].keys() >= {"content-type", "x-ratelimit-limit"}
    statuses = seen["candidate-interviews", 200]["body"]["data"]["each"]["status"]
    assert statuses == "word new_response"
    results = seen["candidate-interviews/ID/results", 200]["body"]["data"]
    assert results["summaryStatus"] == "word complete"


async def test_a_probe_that_cannot_be_written_is_reported(run: Run, tmp_path: Path) -> None:
    """The other checks are shown all the same."""
    done = await run("doctor", "--probe", str(tmp_path / "no" / "probe.json"))
    assert done.status == 1
    assert "FAILED   probe" in done.out
    assert "ok       request" in done.out


def test_the_fake_server_delivers_and_completes() -> None:
    """With --webhook its events arrive, signed; --complete-after finishes who was invited."""
    with _started("webhooks", "listen", "--port", "0", "--secret", "hush") as listening:
        assert listening.stderr is not None
        target = listening.stderr.readline().split()[2]
        options = ("--webhook", target, "--secret", "hush", "--complete-after", "0", "--json")
        with _started("fake-server", "--host", "::1", *options) as process:
            assert process.stdout is not None
            server = json.loads(process.stdout.readline())
            assert server["base_url"].startswith("http://[::1]:")
            names = ("--first-name", "Ada", "--last-name", "Doe", "--email", "ada@example.com")
            environment = os.environ | {
                "GATHER_BASE_URL": server["base_url"],
                "GATHER_API_KEY": server["api_key"],
            }
            command = [sys.executable, "-m", "gather_async"]
            made = subprocess.run(
                [*command, "create", "interview", "--title", "I"],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            subprocess.run(
                [
                    *command,
                    "invite-one",
                    "--interview",
                    made.stdout.strip(),
                    *names,
                    "--phone",
                    "+12025550123",
                ],
                env=environment,
                capture_output=True,
                check=True,
            )
            assert listening.stdout is not None
            events = []
            while "candidate_interview.completed" not in events:
                events.append(json.loads(listening.stdout.readline())["event"])
            process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=60)
        listening.kill()
    assert "interview.created" in events
    assert "POST /qsi/gather/candidate-interviews: 2" in log


@pytest.mark.parametrize("is_quiet", [True, False])
async def test_a_server_that_runs_for_days_keeps_no_requests(
    fake_gather: FakeGather,
    gather_client: GatherClient,
    capsys: pytest.CaptureFixture[str],
    is_quiet: bool,
) -> None:
    """What was answered is printed once, or never if it is quiet, and forgotten."""
    log = _RequestLog(fake_gather, Output(), is_quiet=is_quiet)
    await gather_client.teams.list()
    log.print_answered()
    log.print_answered()
    assert capsys.readouterr().err.count("GET /qsi/gather/teams: 200\n") == (not is_quiet)
    assert not fake_gather.requests


async def test_ctrl_c_keeps_what_an_export_has_read(
    fake_gather: FakeGather,
    gather_client: GatherClient,
    finished: list[str],
    run: Run,
    tmp_path: Path,
) -> None:
    """The old file stays until --resume has made the new one, which reads only the rest."""
    for each in finished:
        await gather_client.candidate_interviews.wait_until_summarized(each)
    output, kept = tmp_path / "r.csv", tmp_path / ".r.csv.progress.jsonl"
    output.write_text("old")
    path = f"/qsi/gather/candidate-interviews/{finished[2]}/results"
    fake_gather.slow_next(600, path=path)
    interview = str(fake_gather.interviews[0]["id"])
    command = ("results", "--interview", interview, "--output", str(output))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gather_async", *command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    async with asyncio.timeout(60):  # nothing else tells when another process has written
        while not kept.exists() or kept.read_text().count("\n") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, output.read_text()) == (130, "old")
    assert "--resume" in err.decode()
    assert "Traceback" not in err.decode()
    assert sorted(each.name for each in tmp_path.iterdir()) == [kept.name, output.name]
    fake_gather.clear_faults()
    fake_gather.clear_requests()
    assert (await run(*command, "--resume")).status == 0
    asked = [each.path for each in fake_gather.requests if each.path.endswith("/results")]
    assert asked == [path]
    assert len(output.read_text().splitlines()) == 4
    assert [each.name for each in tmp_path.iterdir()] == [output.name]


@pytest.mark.usefixtures("run")
async def test_two_exports_at_once_do_not_meet(
    fake_gather: FakeGather, finished: list[str], tmp_path: Path
) -> None:
    """Each writes a file of its own; whichever ends last, the result is whole."""
    output = tmp_path / "r.csv"
    path = f"/qsi/gather/candidate-interviews/{finished[1]}/results"
    fake_gather.slow_next(0.3, path=path)
    interview = str(fake_gather.interviews[0]["id"])
    command = ("results", "--interview", interview, "--output", str(output))
    both = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gather_async", *command), stdout=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    assert [await each.wait() for each in both] == [0, 0]
    assert len(list(csv.DictReader(output.read_text().splitlines()))) == 3
    assert [each.name for each in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize(
    "redirection", ["| true", ">/dev/full", ">&-", ">&- 2>&-", "2>/dev/full", "<&-"]
)
@pytest.mark.parametrize(
    "command",
    [
        "--version",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ("list candidates", "doctor", "help list")
        ),
    ],
)
@pytest.mark.usefixtures("invited", "run")
async def test_streams_that_are_lost_cause_no_traceback(command: str, redirection: str) -> None:
    """Readers that leave, full disks and closed streams: a line at the most, and no success."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"{{ {sys.executable} -m gather_async {command} {redirection}; }}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert b"Traceback" not in out + err
    assert b"Exception ignored" not in out + err
    is_lost = redirection.startswith((">/", ">&"))
    assert process.returncode == is_lost
    if is_lost and "2>" not in redirection:
        assert b"Standard output can't be written" in err


async def test_work_is_reported_though_the_screen_is_gone(
    run: Run, fake_gather: FakeGather, tmp_path: Path
) -> None:
    """`invite --report r.csv | true` sends the invites and writes the report."""
    interview = (await run("create", "interview", "--title", "I")).out.strip()
    (tmp_path / "c.csv").write_text(
        "first name,last name,email,phone\nAda,Doe,ada@example.com,+12025550123\n"
    )
    line = f"{sys.executable} -m gather_async invite c.csv --interview {interview} --report r.csv"
    process = await asyncio.create_subprocess_exec("bash", "-c", f"{line} | true", cwd=tmp_path)
    assert await process.wait() == 0
    assert fake_gather.invites.total() == 1
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["invited"]


PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.slow  # two dozen programs, one after the other
async def test_the_page_shows_what_works(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """Each block of the page runs as in one terminal, those of servers each in its own."""
    page = PAGE.replace("8800", str(unused_tcp_port_factory()))
    page = page.replace("8080", str(unused_tcp_port_factory()))
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    servers = [each for each in blocks if re.match(r"gather-async (fake-server|.* listen)", each)]
    assert (len(servers), len(blocks)) == (2, 10)
    (tmp_path / "candidates.csv").write_text(
        "First Name,Last Name,Email,Phone\nBob,Doe,bob@example.com,(202) 555-0124\n"
    )
    inbox = SQLiteInbox(tmp_path / "webhooks.db")
    await inbox.open()
    await inbox.aclose()
    folder = Path(sys.executable).parent
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment |= {name: path for name, path in os.environ.items() if name.startswith("SSL_CERT")}
    async with AsyncExitStack() as stack:
        for each in servers:
            server = await _terminal(f"exec {each}", tmp_path, environment)
            stack.push_async_callback(server.wait)
            stack.callback(server.terminate)
            assert server.stderr is not None
            await server.stderr.readline()  # it listens
        script = "".join(each for each in blocks if each not in servers)
        terminal = await _terminal(script, tmp_path, environment)
        out, err = await terminal.communicate()
    assert terminal.returncode == 0, err.decode()
    shown = out.decode()
    lines = shown.splitlines()
    assert [len(each.split("\t")) for each in lines if each.endswith("\tinvite_sent")] == [3]
    assert "       1  invited" in lines
    assert [each.split()[1] for each in lines if each[1:2] == "/"] == ["200"] * 3 + ["401", "200"]
    assert [json.loads(each)["email"] for each in lines if "candidate_interview_id" in each] == [
        "ada@example.com"
    ]
    assert {each.name for each in tmp_path.iterdir()} >= {
        *("invites.db", "report.csv", "results.csv", "gather-probe.json", ".config", ".local")
    }


async def _terminal(
    script: str, folder: Path, environment: dict[str, str]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *("bash", "-e", "-u", "-c", script),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_the_page_has_every_command() -> None:
    """A command that isn't on the page is one that isn't found."""
    commands = re.findall(r"^    ([a-z-]+) {2,}", _parser(()).format_help(), re.MULTILINE)
    assert len(commands) > 10
    assert [each for each in commands if f"| `{each}" not in PAGE] == []
