"""The site that Sphinx builds of docs/: its links, its index and its questions.

Asked for with ``-m site``: it needs the extra ``docs``.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import gather_async

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = [pytest.mark.site, pytest.mark.timeout(300)]


class _Page(HTMLParser):
    """The links and the anchors of one page; those of its main column apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.body_links: list[str] = []
        self._is_in_body = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._is_in_body |= tag == "article"
        self.anchors.update(filter(None, [values.get("id"), values.get("name")]))
        link = values.get("href") if tag in {"a", "link"} else values.get("src")
        if link:
            self.links.append(link)
            if tag == "a" and self._is_in_body:
                self.body_links.append(link)

    def handle_endtag(self, tag: str) -> None:
        self._is_in_body &= tag != "article"


@cache
def _page(path: Path) -> _Page:
    return _Page(path.read_text(encoding="utf-8"))


def _is_elsewhere(link: str) -> bool:
    return re.match(r"[a-z]+:|//", link) is not None


def _local(page: Path, links: list[str]) -> Iterator[tuple[str, Path, str]]:
    """Yield each link within the site, with the file and the anchor that it names."""
    for link in links:
        if not _is_elsewhere(link):
            file, anchor = urldefrag(link)
            target = page.parent / unquote(file).partition("?")[0] if file else page
            yield link, target.resolve(), unquote(anchor)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning and with every reference resolved."""
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-qnWE", "--keep-going", str(DOCS), str(built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


def test_every_link_leads_somewhere(site: Path) -> None:
    """Each link of each page names a file of the site, and an anchor that is in it."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link, target, anchor in _local(page, _page(page).links)
        if not target.is_file()
        or (anchor and target.suffix == ".html" and anchor not in _page(target).anchors)
    ]
    assert broken == []


def test_the_index_of_names_has_every_public_one(site: Path) -> None:
    """The alphabetical index lists each name that users import."""
    text = (site / "genindex.html").read_text(encoding="utf-8")
    entries = set(re.findall(r'#(gather_async[\w.]*)"', text))
    names = {entry.rpartition(".")[2] for entry in entries}
    assert len(entries) > 500
    assert set(gather_async.__all__) - names == set()


def _clicks(site: Path) -> Mapping[Path, int]:
    """Return how many clicks in the main column lead from the landing page to each page."""
    distances = {site / "index.html": 0}
    for clicks in (1, 2):
        for page in [page for page, distance in distances.items() if distance == clicks - 1]:
            for _, target, _ in _local(page, _page(page).body_links):
                if target.suffix == ".html" and target.is_file():
                    distances.setdefault(target, clicks)
    return distances


def test_every_page_is_two_clicks_from_the_landing_page(site: Path) -> None:
    """Every page is read after two clicks from the landing page, without the menu."""
    pages = {site / page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    assert pages - _clicks(site).keys() == set()
