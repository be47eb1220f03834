"""The pages of docs/ are true: their code and commands run, their links lead somewhere."""

import ast
import asyncio
import builtins
import inspect
import os
import re
import shutil
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
import trustme
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.myst import CodeBlockParser, SkipParser
from sybil.typing import Parser

import gather_async
from gather_async import GatherClient, RetryPolicy, errors
from gather_async.redis import RedisLease
from gather_async.testing import FakeGather
from gather_async.webhooks import WebhookReceiver, verify
from tests.users_project import run_pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Their blocks have tests of their own, which also check what comes out.
TESTED_ELSEWHERE = {
    "bulk-invites.md": "bulk/test_docs.py",
    "troubleshooting.md": "test_docs.py",
    "tutorial.md": "test_docs.py",
    "webhooks.md": "webhooks/test_frameworks.py",
}
PUBLIC_PACKAGES = ("errors", "models", "webhooks", "bulk", "testing", "redis", "postgres", "otel")
TUTORIAL = [DOCS / "examples" / name for name in ("fastapi_service.py", "test_fastapi_service.py")]
LANGUAGES = ("python", "sh", "text")
# A block of these words is a test, and pytest runs it.
A_TEST = "def test_"
# What pages write for the address of a server, and the fixture that has a real one.
SERVERS = {
    "redis://localhost:6379/0": "redis_url",
    "postgresql://localhost/app": "postgres_url",
}
CANDIDATES = """\
First Name,Last Name,Email,Phone
Ada,Doe,ada@example.com,+12025550123
Bob,Doe,bob@example.com,12
"""


def blocks_of(page: Path, language: str) -> list[Example]:
    """Return the blocks of a language, those in comments included and skipped ones left out."""
    return _blocks(page)[language]


@cache
def _blocks(page: Path) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {name: [] for name in LANGUAGES}
    parsers: list[Parser] = [CodeBlockParser(name, found[name].append) for name in LANGUAGES]
    for example in Sybil([*parsers, SkipParser()]).parse(page).examples():
        example.evaluate()
    return found


def _programs(page: Path) -> list[Example]:
    """Return what of a page's Python is no test."""
    return [each for each in blocks_of(page, "python") if A_TEST not in str(each.parsed)]


TESTED_HERE = [page for page in PAGES if page.name not in TESTED_ELSEWHERE]
WITH_PROGRAMS = [page for page in TESTED_HERE if _programs(page)]


def _name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.fixture
async def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeGather]:
    """A server that makes audio at once, and an environment and a folder that fit it."""
    (tmp_path / "candidates.csv").write_text(CANDIDATES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", "whsec_example")
    async with FakeGather(audio_seconds=0.0, summary_seconds=0.0) as fake:
        monkeypatch.setenv("GATHER_API_KEY", fake.api_key)
        monkeypatch.setenv("GATHER_BASE_URL", fake.base_url)
        yield fake


def with_servers(code: str, request: pytest.FixtureRequest) -> str:
    """Return code with the addresses of servers that run."""
    for written, fixture in SERVERS.items():
        if written in code:
            code = code.replace(written, request.getfixturevalue(fixture))
    return code


async def _run(example: Example, names: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Run a block in this loop; it may await as if it stood in a coroutine."""
    lines = "\n" * (example.line + example.parsed.line_offset)  # tracebacks show the page's line
    source = lines + example.parsed.replace("asyncio.run(main())", "await main()")
    await _execute(with_servers(source, request), example.path, names)


async def _execute(source: str, name: str, names: dict[str, Any]) -> None:
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    waiting = eval(compile(source, name, "exec", flags=flags, dont_inherit=True), names)
    if inspect.iscoroutine(waiting):
        await waiting


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=_name)
async def test_the_programs_of_a_page_run(
    page: Path, fake: FakeGather, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block runs after those before it, with a client at hand, and its asserts hold."""
    async with fake.client(user_id=fake.user_id) as gather:
        module = ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", module)  # frameworks resolve annotations there
        vars(module).update(gather=gather, fake=fake)
        for block in _programs(page):
            await _run(block, vars(module), request)


@pytest.mark.slow
def test_the_tests_of_the_pages_pass(tmp_path: Path) -> None:
    """Each block that is a test passes under pytest, warnings as errors."""
    blocks = [
        str(block.parsed)
        for page in TESTED_HERE
        for block in blocks_of(page, "python")
        if A_TEST in str(block.parsed)
    ]
    for program in TUTORIAL:
        shutil.copy(program, tmp_path)
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block, encoding="utf-8")
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(blocks) >= 3


def test_the_tutorial_shows_its_program() -> None:
    """Each block of the tutorial stands in the program that it builds, or in its tests."""

    def flat(text: str) -> str:
        return "\n".join(map(str.strip, text.splitlines()))

    programs = flat("".join(program.read_text(encoding="utf-8") for program in TUTORIAL))
    blocks = blocks_of(DOCS / "tutorial.md", "python")
    assert len(blocks) > 5
    assert [block.line for block in blocks if flat(str(block.parsed)) not in programs] == []


def test_the_table_of_errors_is_complete() -> None:
    """The table names every error class but the root, and nothing else."""
    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    table = page.partition("| error |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([A-Z]\w+Error)`", table))
    assert named == {name for name in errors.__all__ if name.endswith("Error")} - {"GatherError"}


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and Sphinx make of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link between pages names a file that exists, and a heading that is in it."""
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|genindex)([^)\s]+)\)", text)
    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), f"{page.name} links to {link}, which doesn't exist"
        assert not anchor or anchor in _anchors(target), f"{page.name} links to {link}: no heading"


def test_the_readme_leads_to_every_page() -> None:
    """Each page of the documentation can be reached from the README."""
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES}
    assert pages <= set(re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text("utf-8")))


def _public_names() -> list[tuple[str, str]]:
    """Return package and name of everything that users import."""
    names = [name for name in PUBLIC_PACKAGES if [*(ROOT / "gather_async").glob(f"{name}*")]]
    packages = [gather_async, *(import_module(f"gather_async.{name}") for name in names)]
    return [(each.__name__, name) for each in packages for name in each.__all__]


def _reference() -> tuple[set[str], set[str]]:
    """Return the names that the reference documents, and all words of its examples."""
    directives: set[str] = set()
    words: set[str] = set()
    for page in (DOCS / "reference").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for kind, name in re.findall(r"^\.\. auto(\w+):: ([\w.]+)", text, re.MULTILINE):
            directives.add(name.rpartition(".")[2])
            if kind == "module" and ":no-members:" not in text.partition(name)[2][:40]:
                directives.update(import_module(name).__all__)
        for block in blocks_of(page, "python"):
            words.update(re.findall(r"\w+", str(block.parsed)))
    return directives, words


def test_the_reference_has_every_public_name() -> None:
    """Each name that users import is documented, and each class stands in an example that runs."""
    directives, words = _reference()
    names = _public_names()
    assert len(names) > 100
    assert [f"{package}.{name}" for package, name in names if name not in directives] == []
    classes = [
        (package, name)
        for package, name in names
        if inspect.isclass(getattr(import_module(package), name))
    ]
    assert [f"{package}.{name}" for package, name in classes if name not in words] == []


def _troubles() -> list[tuple[str, str, str]]:
    """Return message, provoking code and explanation of each section on trouble."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    pattern = r"^## ([^\n]+)\n\n<!--- invisible-code-block: python\n(.+?)-->\n\n(.+?)(?=\n## |\Z)"
    return re.findall(pattern, text, re.MULTILINE | re.DOTALL)


@asynccontextmanager
async def _serve_tls() -> AsyncIterator[str]:
    """Serve TLS with a certificate that no authority has signed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context
    )
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def provoke(
    fake: FakeGather, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Callable[[str], Awaitable[Exception]]]:
    """Runs code that fails, with what it may use at hand; returns the error."""
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # so that it is set back
        monkeypatch.delenv(name)
    once = RetryPolicy(attempts=1, in_flight_timeout=None)
    async with (
        FakeGather(fail_audio_for={"Bad"}, audio_seconds=60.0) as slow,
        slow.client(retry=once, user_id=slow.user_id) as gather,
        _serve_tls() as url,
        GatherClient("key", base_url=url, retry=once) as untrusted,
    ):
        names = {"fake": slow, "gather": gather, "once": once, "untrusted": untrusted}
        names |= {name: getattr(gather_async, name) for name in gather_async.__all__}
        names |= {"os": os, "time": time, "asyncio": asyncio, "verify": verify}
        names |= {"WebhookReceiver": WebhookReceiver, "RedisLease": RedisLease}

        async def run(code: str) -> Exception:
            try:
                await _execute(with_servers(code, request), "troubleshooting.md", names)
            except Exception as error:
                return error
            pytest.fail("The code raises nothing.")

        yield run


@pytest.mark.parametrize("trouble", _troubles(), ids=lambda trouble: trouble[0][:40])
async def test_a_message_is_what_its_trouble_says(
    trouble: tuple[str, str, str], provoke: Callable[[str], Awaitable[Exception]]
) -> None:
    """The code of a section raises the error that it explains, in the words of its title."""
    title, code, explanation = trouble
    error = await provoke(code)
    said = "\n".join([str(error), *getattr(error, "__notes__", [])])
    pattern = re.escape(title).replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, said, re.DOTALL), said
    assert explanation.startswith(f"`{type(error).__name__}`. ")


def test_every_error_is_in_a_trouble() -> None:
    """Each class of errors but the root stands in one of the sections, which all have a cause."""
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    assert len(_troubles()) == page.count("\n## ")
    classes = {name for name in errors.__all__ if name.endswith("Error")} - {"GatherError"}
    explained = {each[2].partition("`. ")[0][1:] for each in _troubles()}
    assert classes - explained == set()


def test_the_landing_page_answers_twenty_questions() -> None:
    """Each question of the list leads to a page of its own."""
    text = (DOCS / "index.md").read_text(encoding="utf-8").partition("## I want to ...")[2]
    answers = re.findall(r"^\d+\. (?:\[.+?\]\((.+?)\))", text, re.MULTILINE)
    assert len(set(answers)) == 20
    assert all((DOCS / answer).is_file() for answer in answers)


def test_every_block_is_run_or_inert() -> None:
    """No block of a language that is neither run nor just shown stands on a page."""
    inert = {"nginx"}
    elsewhere = {"console", "pycon"}  # the benchmarks' page, and bulk/test_docs.py
    languages = {
        language
        for page in PAGES
        for language in re.findall(r"^```(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert languages - {*LANGUAGES} == inert | elsewhere


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_names_on_a_page_exist(page: Path) -> None:
    """Each class that the text names is one of ours, of Python or of aiohttp."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z][A-Za-z]*)[`(.]", text))
    ours = {name for _, name in _public_names()}
    known = ours.union(dir(builtins), dir(asyncio), dir(aiohttp))
    assert named - known == set()
