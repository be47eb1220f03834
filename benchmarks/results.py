"""The files that a run leaves: ``results/table.md``, and a plot for each group of figures."""

import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.meter import CAN_COUNT

__all__ = ["machine", "write"]

_FOLDER = Path(__file__).parent / "results"
_TABLE = _FOLDER / "table.md"
_SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_HEAD = """\
# Figures

Written by `python -m benchmarks`: each section by the last run that measured it.
What they mean to a user is said in `docs/benchmarks.md`.
"""


def machine() -> str:
    """Return when and on what a run measures."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "attrs", "cattrs"))
    counted = "instructions counted by callgrind" if CAN_COUNT else "no valgrind: CPU time"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: {platform.python_implementation()} "
        f"{platform.python_version()}, {packages}; {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores; {counted}."
    )


def write(measured: Mapping[str, Sequence[Figure]]) -> None:
    """Replace the sections of these benchmarks in the table, and their plots.

    Args:
        measured: The figures of each benchmark, by its name.
    """
    _FOLDER.mkdir(exist_ok=True)
    kept = dict(_SECTION.findall(_TABLE.read_text())) if _TABLE.exists() else {}
    new = {name: "\n".join(_section(figures)) for name, figures in measured.items() if figures}
    sections = sorted({**kept, **new}.items())
    _TABLE.write_text(
        _HEAD + "".join(f"\n## {name}\n\n{text.strip()}\n" for name, text in sections)
    )
    for figures in measured.values():
        for group in dict.fromkeys(figure.group for figure in figures if figure.group):
            bars = [figure for figure in figures if figure.group == group]
            (_FOLDER / f"{_slug(group)}.svg").write_text(_plot(group, bars))


def _section(figures: Iterable[Figure]) -> Iterator[str]:
    yield machine()
    yield ""
    yield "| figure | measured | made of | target | |"
    yield "| --- | ---: | ---: | --- | --- |"
    for figure in figures:
        mark = {None: "", True: "met", False: "**missed**"}[figure.ok]
        cells = (figure.name, figure.value, figure.detail, figure.target or "", mark)
        yield f"| {' | '.join(cells)} |"


def _slug(group: str) -> str:
    return re.sub(r"\W+", "-", group).strip("-")


_LABEL, _BAR, _ROW, _HEADING = 300, 340, 24, 32  # pixels
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" font-family="sans-serif" font-size="13" fill="#222222">
<title>{title}</title>
<rect width="{width}" height="{height}" fill="#ffffff"/>
<text x="8" y="20" font-weight="bold">{title}</text>
{bars}
</svg>
"""
_SVG_BAR = """\
<text x="{left}" y="{base}" text-anchor="end">{label}</text>
<rect x="{start}" y="{top}" width="{length}" height="{thickness}" fill="{colour}"/>
<text x="{end}" y="{base}">{value}</text>"""


def _plot(title: str, figures: Sequence[Figure]) -> str:
    """Return horizontal bars as SVG, ours in another colour; legible on dark pages, too."""
    longest = max(figure.size for figure in figures)
    bars = [_bar(figure, row, longest) for row, figure in enumerate(figures)]
    return _SVG.format(
        title=escape(title),
        width=_LABEL + _BAR + 160,
        height=_HEADING + _ROW * len(bars) + 8,
        bars="\n".join(bars),
    )


def _bar(figure: Figure, row: int, longest: float) -> str:
    label = figure.name.rpartition(": ")[2]
    top, length = _HEADING + _ROW * row, max(1, round(_BAR * figure.size / longest))
    return _SVG_BAR.format(
        label=escape(label),
        value=escape(figure.value),
        colour="#c2410c" if label.startswith("gather_async") else "#94a3b8",
        left=_LABEL - 8,
        start=_LABEL,
        end=_LABEL + length + 6,
        top=top,
        base=top + 14,
        length=length,
        thickness=_ROW - 6,
    )
