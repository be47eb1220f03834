"""The live bar of ``invite``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gather_async.bulk import InviteProgress
from gather_async.cli.output import Screen
from gather_async.client import GatherClient

__all__ = ["describe", "watching"]

# Seconds; a rate over less would be that of the first burst, which the quota soon ends.
_TELLING = 10.0


@contextmanager
def watching(gather: GatherClient, screen: Screen) -> Iterator[Callable[[InviteProgress], None]]:
    """Yield a callback that moves a bar; on anything but a terminal it shows nothing."""
    if not screen.err.is_terminal:  # rich would write an empty line at the end
        yield lambda _: None
        return
    bar = Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=screen.err,
        transient=True,
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
