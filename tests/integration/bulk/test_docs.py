"""The page on bulk invites: its code runs as it is, and its names and figures are the code's."""

import ast
import csv
import inspect
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from gather_async.bulk import BulkInvite, InviteStatus
from gather_async.bulk.report import InviteProgress
from gather_async.bulk.row_check import FIELDS
from gather_async.testing import FakeGather

from .conftest import Bench, people

PAGE = (Path(__file__).parents[3] / "docs" / "bulk-invites.md").read_text(encoding="utf-8")
PROGRAM, DRY_RUN, LOOP, LEASE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


async def run(block: str, **names: Any) -> dict[str, Any]:
    """Run a block, which may await, and return its names."""
    block = block.replace("interview_id=...", "interview_id=interview_id")
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(block, "bulk-invites.md", "exec", flags=flags, dont_inherit=True)
    waiting = eval(code, names)
    if inspect.iscoroutine(waiting):
        await waiting
    return names


async def test_the_program_invites_a_file_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first program invites everyone in a file; run again, it sends nothing."""
    fields: list[str] = ["first_name", "last_name", "email", "phone"]
    with (tmp_path / "candidates.csv").open("w", newline="") as file:
        lines = csv.DictWriter(file, fields)
        lines.writeheader()
        lines.writerows([*people(3), {**people(1)[0], "email": "absent"}])
        lines.writerow({**people(1, first=9)[0], "phone": "(202) 555-0123"})
    monkeypatch.chdir(tmp_path)
    async with FakeGather() as fake:
        bench = Bench(fake, None)
        await bench.open()
        monkeypatch.setenv("GATHER_API_KEY", fake.api_key)
        monkeypatch.setenv("GATHER_BASE_URL", fake.base_url)
        program = PROGRAM.replace("0b54c6b9-6d3b-4a86-9a4d-0f4b1c9f1f60", bench.interview_id)
        assert "asyncio.run(main())" in program
        program = program.replace("asyncio.run(main())", "await main()")
        for _ in range(2):
            await run(program, __name__="__main__")
            assert capsys.readouterr().out == "4 1 0\n"
        await bench.aclose()
        assert len(bench.sent) == 1 + 8
        assert set(bench.invited.values()) == {1}
    with (tmp_path / "outcomes.csv").open(newline="") as file:
        statuses = [line["status"] for line in csv.DictReader(file)]
    assert statuses == ["invited"] * 3 + ["rejected", "invited"]


async def test_the_dry_run_and_the_loop_run(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The dry run tells what it would cost, and the loop prints each outcome."""
    monkeypatch.chdir(tmp_path)
    names = {
        "gather": bench.client(),
        "rows": [*people(2), {**people(1)[0], "phone": "12"}],
        "interview_id": bench.interview_id,
    }
    await run(DRY_RUN, **names)
    assert capsys.readouterr().out.startswith("2 1 5 ")
    assert bench.sent == []
    assert list(tmp_path.iterdir()) == []
    after = await run(LOOP, **names)
    printed = sorted(capsys.readouterr().out.splitlines())
    assert [line.split()[:2] for line in printed] == [
        ["1", "invited"],
        ["2", "invited"],
        ["3", "rejected"],
    ]
    assert after["report"].invited == 2


async def test_the_lease_is_held_by_one_job(
    bench: Bench,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The program runs the job, and says so if another worker does."""
    monkeypatch.chdir(tmp_path)
    program = LEASE.replace("redis://localhost:6379/0", redis_url)
    names = {"gather": bench.client(), "rows": people(2), "interview_id": bench.interview_id}
    after = await run(program, **names)
    assert after["report"].invited == 2
    async with after["lease"]:
        assert "report" not in await run(program, **names)
    assert "free in 30 s" in capsys.readouterr().out


def test_the_figures_and_names_are_those_of_the_code() -> None:
    """Defaults, fields, outcomes and progress are as the page says."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(BulkInvite).parameters.items()
    }
    text = " ".join(PAGE.split())
    assert f"`in_flight_timeout` seconds ({defaults['in_flight_timeout']:g})" in text
    assert f"`grace` seconds ({defaults['grace']:g})" in text
    assert (
        f"`max_consecutive_failures` failures in a row ({defaults['max_consecutive_failures']})"
        in text
    )
    assert f'`"{defaults["on_existing"]}"` (default)' in text
    assert all(f"`{name}`" in text for name in FIELDS)
    table = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert table == {status.value for status in InviteStatus} - {InviteStatus.READY.value}
    progress = text[text.index("## Progress") : text.index("## Cost")]
    assert all(f"`{field.name}`" in progress for field in attrs.fields(InviteProgress))
