"""The invite command, run for real against FakeGather."""

import asyncio
import csv
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gather_async import GatherClient
from gather_async.bulk import InviteProgress, InviteStatus
from gather_async.cli import main
from gather_async.cli.invite import describe, watching
from gather_async.cli.output import Output, Stream
from gather_async.testing import FakeGather


@pytest.fixture
async def interview(
    fake_gather: FakeGather, gather_client: GatherClient, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return the id of an interview on the server that the environment names."""
    monkeypatch.setenv("GATHER_API_KEY", fake_gather.api_key)
    monkeypatch.setenv("GATHER_BASE_URL", fake_gather.base_url)
    return (await gather_client.interviews.create(title="I", interview_type="standard")).id


def _rows(folder: Path, *phones: str) -> str:
    """Write a file of candidates with these phone numbers; return its path."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["firstName", "lastName", "email", "phone"])
    for number, phone in enumerate(phones):
        writer.writerow([f"P{number}", "Doe", f"p{number}@example.com", phone])
    path = folder / "candidates.csv"
    path.write_text(file.getvalue(), encoding="utf-8")
    return str(path)


async def _invite(*argv: str) -> int:
    return await asyncio.to_thread(main, ["invite", *argv])


async def test_everyone_is_invited_once(
    fake_gather: FakeGather, interview: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All good rows give 0; the same command again sends nothing more."""
    file = _rows(tmp_path, "+12025550123", "+12025550124", "+12025550125")
    journal = str(tmp_path / "j.db")
    assert await _invite(file, "--interview", interview, "--journal", journal) == 0
    assert "3  invited" in capsys.readouterr().out
    sent = len(fake_gather.requests)
    assert await _invite(file, "--interview", interview, "--journal", journal) == 0
    assert (len(fake_gather.requests), fake_gather.invites.total()) == (sent, 3)


async def test_a_bad_row_is_named_and_the_rest_invited(
    fake_gather: FakeGather, interview: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rejected rows give 1, their numbers and why; the report has a line for each row."""
    file = _rows(tmp_path, "+12025550123", *["(202) 555-0199 x5"] * 9)
    report = tmp_path / "out.csv"
    assert await _invite(file, "--interview", interview, "--report", str(report)) == 1
    shown = capsys.readouterr()
    assert "9  rejected" in shown.out
    assert "rows 2, 3, 4, 5, 6, 7, 8, 9 and 1 more: rejected: Leave out the extension" in shown.err
    assert "(lines 3, 4, 5, 6, 7, 8, 9, 10 and 1 more)" in shown.err.replace("\n", " ")
    assert "Without --journal" in shown.err
    assert "0199" not in shown.out + shown.err
    with report.open(encoding="utf-8", newline="") as lines:
        assert [row["status"] for row in csv.DictReader(lines)] == ["invited"] + ["rejected"] * 9
    assert fake_gather.invites.total() == 1


async def test_a_dry_run_sends_nothing(
    fake_gather: FakeGather, interview: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run tells requests and time; national numbers are read in --region."""
    file = _rows(tmp_path, *["(202) 555-0123"] * 3)
    before = len(fake_gather.requests)
    options = ["--interview", interview, "--region", "us", "--dry-run"]
    assert await _invite(file, *options) == 0
    shown = capsys.readouterr().out
    assert "Nothing was sent. It would take at most 7 requests" in shown
    assert "3  ready" in shown
    assert len(fake_gather.requests) == before


async def test_a_refused_key_stops_at_once(
    fake_gather: FakeGather, interview: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """401 gives 3 and how to go on."""
    fake_gather.revoke_key()
    file, journal = _rows(tmp_path, "+12025550123"), str(tmp_path / "j.db")
    assert await _invite(file, "--interview", interview, "--journal", journal) == 3
    shown = capsys.readouterr().err
    assert "GATHER_API_KEY" in shown
    assert f"run the same command again with --journal {journal}" in shown


@pytest.mark.usefixtures("interview")
async def test_a_misspelt_interview_is_wrong_usage(
    fake_gather: FakeGather, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job ends with the first row: no other could fare better."""
    file = _rows(tmp_path, *(f"+1202555{number:04d}" for number in range(40)))
    assert await _invite(file, "--interview", "misspelt", "--concurrency", "1") == 2
    assert "Interview not found" in capsys.readouterr().err
    assert (len(fake_gather.candidates), fake_gather.invites.total()) == (1, 0)


async def test_a_journal_that_is_none_is_reported(
    interview: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal in a folder that doesn't exist gives one line and 1."""
    file, journal = _rows(tmp_path, "+12025550123"), str(tmp_path / "no" / "j.db")
    assert await _invite(file, "--interview", interview, "--journal", journal) == 1
    assert "can't be used" in capsys.readouterr().err


async def test_a_report_that_cannot_be_written_is_reported(
    interview: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The invites are out, and the missing report is no secret: a part has failed."""
    file, circle = _rows(tmp_path, "+12025550123"), tmp_path / "circle.csv"
    circle.symlink_to(circle)
    assert await _invite(file, "--interview", interview, "--report", str(circle)) == 1
    said = capsys.readouterr()
    assert "can't be written" in said.err
    assert "1  invited" in said.out


async def test_a_report_that_has_no_place_is_refused_before_anyone_is_invited(
    fake_gather: FakeGather, interview: str, tmp_path: Path
) -> None:
    """A folder, and a file in a folder that doesn't exist, are wrong usage."""
    file, sent = _rows(tmp_path, "+12025550123"), len(fake_gather.requests)
    for wrong in (tmp_path, tmp_path / "no" / "r.csv"):
        assert await _invite(file, "--interview", interview, "--report", str(wrong)) == 2
    assert len(fake_gather.requests) == sent


@pytest.mark.parametrize(
    "options",
    [
        ["--via", "fax"],
        ["--region", "XX"],
        ["--concurrency", "0"],
        ["--on-existing", "shout"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_sends_nothing(
    fake_gather: FakeGather, interview: str, tmp_path: Path, options: list[str]
) -> None:
    """An option that can't work gives 2."""
    before = len(fake_gather.requests)
    file = _rows(tmp_path, "+12025550123")
    assert await _invite(file, "--interview", interview, *options) == 2
    assert len(fake_gather.requests) == before


@pytest.mark.parametrize(
    "pair", [("FILE", "--report"), ("FILE", "--journal"), ("--journal", "--report")], ids="".join
)
@pytest.mark.parametrize("kind", ["the same name", "a hard link", "a symbolic link"])
async def test_no_file_of_a_job_is_written_over_another(
    interview: str, tmp_path: Path, pair: tuple[str, str], kind: str
) -> None:
    """The people, and who of them was invited, outlive a report or journal of their name."""
    (first, second), file = pair, _rows(tmp_path, "+12025550123")
    journal = tmp_path / "j.db"
    assert await _invite(file, "--interview", interview, "--journal", str(journal)) == 0
    paths = {"FILE": Path(file), "--journal": journal, "--report": tmp_path / "r.csv"}
    if kind == "the same name":
        paths[second] = paths[first]
    else:
        paths[second] = tmp_path / "other"
        link = paths[second].hardlink_to if kind == "a hard link" else paths[second].symlink_to
        link(paths[first])
    before = paths[first].read_bytes()
    options = [text for name in ("--journal", "--report") for text in (name, str(paths[name]))]
    assert await _invite(str(paths["FILE"]), "--interview", interview, *options) == 2
    assert paths[first].read_bytes() == before


def _raise(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def test_a_report_that_fails_half_way_leaves_the_old_one(
    interview: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is replaced once the new one is whole, its links and mode stay; a pipe stays a pipe."""
    file, report, link = _rows(tmp_path, "+12025550123"), tmp_path / "r.csv", tmp_path / "l.csv"
    report.write_text("old")
    report.chmod(0o640)
    link.symlink_to(report)
    arguments = (file, "--interview", interview, "--dry-run", "--report")
    with monkeypatch.context() as patched:
        patched.setattr("gather_async.bulk.report._line", _raise)
        assert await _invite(*arguments, str(link)) == 1
    assert report.read_text() == "old"
    assert await _invite(*arguments, str(link)) == 0
    assert report.read_text().startswith("row,line,")
    assert (link.is_symlink(), report.stat().st_mode & 0o777) == (True, 0o640)
    assert {each.name for each in tmp_path.iterdir()} == {"candidates.csv", "r.csv", "l.csv"}
    pipe = tmp_path / "p.csv"
    os.mkfifo(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    assert await _invite(*arguments, str(pipe)) == 0
    assert (await reading).startswith("row,line,")
    assert pipe.is_fifo()


async def test_a_missing_file_is_wrong_usage(interview: str, tmp_path: Path) -> None:
    """A file that isn't there gives 2."""
    assert await _invite(str(tmp_path / "none.csv"), "--interview", interview) == 2


async def test_ctrl_c_ends_what_is_on_its_way_and_shows_how_to_go_on(
    fake_gather: FakeGather, interview: str, tmp_path: Path
) -> None:
    """After Ctrl-C the counts are shown, the status is 130, and the next run invites the rest."""
    people = 15  # few enough for the quota of a minute, slow enough to be interrupted
    fake_gather.slow_next(0.05, times=math.inf)
    file = _rows(tmp_path, *[f"+1202555{number:04}" for number in range(people)])
    command = ["invite", file, "--interview", interview, "--journal", str(tmp_path / "j.db")]
    command += ["--concurrency", "2"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gather_async", *command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    # The interview is the first request.
    await fake_gather.wait_for_requests(8)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130, err.decode()
    assert "run the same command again" in err.decode()
    assert "invited" in out.decode()
    assert 0 < fake_gather.invites.total() < people
    assert await asyncio.to_thread(main, command) == 0
    assert sorted(fake_gather.invites_by_person.values()) == [1] * people


def _progress(**changes: object) -> InviteProgress:
    values: dict[str, object] = {
        "done": 40,
        "earlier": 10,
        "total": 100,
        "counts": {InviteStatus.INVITED: 29, InviteStatus.REJECTED: 1},
        "requests_sent": 58,
        "requests_left": 140,
        "remaining": timedelta(minutes=2),
        "finish_at": datetime(2025, 6, 1, 12, tzinfo=UTC),
        "elapsed": 60.0,
    }
    return InviteProgress(**(values | changes))  # type: ignore[arg-type]  # a table of fields


def test_the_bar_shows_counts_rate_quota_and_finish() -> None:
    """One line says all that a person asks while waiting."""
    line = describe(_progress(), quota=42)
    assert line.startswith("29 invited, 1 rejected  30/min  quota 42  until ")
    assert describe(_progress(counts={}, elapsed=0.0), quota=1).startswith("quota 1")


async def test_the_bar_is_drawn_on_a_terminal_only(
    gather_client: GatherClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A log file gets no bar."""
    with watching(gather_client, Output()) as show:
        show(_progress())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(Stream, "isatty", lambda _: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with watching(gather_client, Output()) as show:
        show(_progress())
    shown = capsys.readouterr()
    assert "29 invited, 1 rejected" in shown.out + shown.err


@pytest.mark.parametrize("width", ["40", "80", "120"])
async def test_the_bar_cuts_no_number(
    gather_client: GatherClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: str,
) -> None:
    """However many counts there are, and however narrow the terminal is, all can be read."""
    monkeypatch.setattr(Stream, "isatty", lambda _: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", width)
    progress = _progress(counts=dict.fromkeys(InviteStatus, 12_345), done=23_456, total=34_567)
    with watching(gather_client, Output()) as show:
        show(progress)
    shown = capsys.readouterr()
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.out + shown.err).split()
    wanted = describe(progress, quota=gather_client.rate_limit_status.remaining).split()
    assert "23456/34567" in words
    assert [each for each in wanted if each not in words] == []


async def test_the_json_lines_of_a_file_are_read(
    fake_gather: FakeGather, interview: str, tmp_path: Path
) -> None:
    """A .jsonl file works as well, and --via sms needs people who agreed to it."""
    row = {"firstName": "A", "lastName": "B", "email": "a@example.com", "phone": "+12025550123"}
    path = tmp_path / "c.jsonl"
    lines = [row | {"smsOptIn": True}, row | {"email": "b@example.com", "smsOptIn": False}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert await _invite(str(path), "--interview", interview, "--via", "email,sms") == 1
    assert [invite.delivery_types for invite in fake_gather.invite_log] == [("email", "sms")]


async def test_a_file_is_read_as_the_options_say_and_the_dry_run_shows_how(
    fake_gather: FakeGather, interview: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--encoding and --column decide; the dry run shows columns and shapes, and no person."""
    text = "First Name;Last Name;Email;Mobile;Phone\nZoé;Doe;z@example.com;+12025550123;x\n"
    path = tmp_path / "people.csv"
    path.write_bytes(text.encode("cp850"))
    argv = [str(path), "--interview", interview, "--dry-run"]
    assert await _invite(*argv) == 1
    capsys.readouterr()
    argv += ["--encoding", "cp850", "--column", "mobile=phone"]
    assert await _invite(*argv) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "csv in cp850 (given), cells parted by ';'" in shown
    assert "'Mobile' as phone" in shown
    assert "columns ignored: 'Phone'" in shown
    assert "a row: first_name Xxx, last_name Xxx, email x@xxxxxxx.xxx, phone +99999999999" in shown
    assert "Zo" not in shown
    assert not fake_gather.requests[1:]


@pytest.mark.parametrize(
    "options",
    [["--encoding", "utf-9"], ["--column", "Mobile=telephone"], ["--column", "=phone"]],
)
def test_wrong_options_of_the_file_are_refused_at_once(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown codec or field ends the command before anything is read."""
    argv = ["invite", _rows(tmp_path, "+12025550123"), "--interview", "i", *options]
    assert main(argv) == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "way",
    [
        "fifo",
        pytest.param("-", marks=pytest.mark.slow),
        pytest.param("substitution", marks=pytest.mark.slow),
    ],
)
async def test_pipes_are_files_too(
    fake_gather: FakeGather, interview: str, tmp_path: Path, way: str
) -> None:
    """Standard input, a named pipe and the shell's process substitution are read once."""
    source = _rows(tmp_path, *(f"+1202555{number:04d}" for number in range(300)))
    program = f"{sys.executable} -m gather_async invite"
    if way == "-":
        line = f"cat {source} | {program} -"
    elif way == "fifo":
        line = f"mkfifo {tmp_path}/p; cat {source} > {tmp_path}/p & {program} {tmp_path}/p"
    else:
        line = f"{program} <(cat {source})"
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        f"{line} --interview {interview} --dry-run",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"300  ready" in out


async def test_another_key_is_asked_about(
    fake_gather: FakeGather,
    interview: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A journal of another key needs --other-key; --retry-failed opens what was refused."""
    file, journal = _rows(tmp_path, "+12025550123"), str(tmp_path / "j.db")
    options = ["--interview", interview, "--journal", journal]
    fake_gather.fail_next(status=400, path="/qsi/gather/candidates", method="POST")
    assert await _invite(file, *options) == 1
    assert await _invite(file, *options) == 1
    assert await _invite(file, *options, "--retry-failed") == 0
    monkeypatch.setenv("GATHER_API_KEY", "another-key")
    assert await _invite(file, *options) != 0
    assert "--other-key" in capsys.readouterr().err
    assert await _invite(file, *options, "--other-key") == 0
