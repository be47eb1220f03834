"""What ``invite`` says at its end."""

from datetime import timedelta

from gather_async.bulk import InviteReport
from gather_async.cli.output import Screen

__all__ = ["show_plan", "show_report"]

_REASONS = 10
_ROWS = 8


def show_plan(report: InviteReport, screen: Screen) -> None:
    """Write what the job would cost."""
    if report.plan is None:
        return
    plan = report.plan
    finish = plan.finish_at.astimezone().strftime("%a %d %b %H:%M")
    screen.say(
        f"Nothing was sent. It would take {plan.requests} requests ({plan.writes} writes,"
        f" {plan.lookup_requests} look-ups) and {_duration(plan.duration)}, until {finish}."
    )


def _duration(time: timedelta) -> str:
    minutes = -(-time // timedelta(minutes=1))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show_report(report: InviteReport, screen: Screen) -> None:
    """Write the counts, and why rows went wrong, without personal data."""
    for status, count in report.counts.items():
        if count:
            screen.say(f"{count:>8}  {status.value.replace('_', ' ')}")
    if report.unfinished:
        screen.say(f"{report.unfinished:>8}  unfinished")
    screen.say(f"{report.total:>8}  rows, {report.requests} requests")
    for reason, rows in _reasons(report).items():
        shown = ", ".join(map(str, rows[:_ROWS]))
        more = f" and {len(rows) - _ROWS} more" if len(rows) > _ROWS else ""
        screen.note(f"row{'s' * (len(rows) > 1)} {shown}{more}: {reason}", style="yellow")


def _reasons(report: InviteReport) -> dict[str, list[int]]:
    """Return the rows that went wrong, by why, for as many reasons as a person reads."""
    rows: dict[str, list[int]] = {}
    for outcome in report.failures:
        reason = f"{outcome.status.value}: {outcome.reason}"
        if reason not in rows and len(rows) == _REASONS:
            reason = "for other reasons; --report lists them all"
        rows.setdefault(reason, []).append(outcome.row)
    return rows
