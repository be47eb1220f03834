"""The state of the windows as a value, and as one line of text. Pure."""

import math
from datetime import UTC, datetime

from gather_async.models.rate_limit import QueueStatus, RateLimitStatus, WindowStatus
from gather_async.protocol.rolling_windows import RollingWindows

__all__ = ["describe", "snapshot"]


def snapshot(
    windows: RollingWindows, *, now: float, wall: float, held: float, queued: QueueStatus
) -> RateLimitStatus:
    """Return the quota as it stands at ``now``, which is ``wall`` in Unix seconds."""
    states = []
    for window in windows.windows:
        used = windows.used(window, now)
        states.append(
            WindowStatus(
                limit=window.limit,
                period=window.period,
                used=used,
                remaining=max(0, window.limit - used),
                others=window.others,
                next_free=_seconds(windows.window_free_at(window, now), now),
                learned=window.learned,
            )
        )
    return RateLimitStatus(
        windows=tuple(states),
        in_flight=windows.in_flight,
        queued=queued,
        next_slot=_seconds(max(windows.free_at(now), held), now),
        held_until=datetime.fromtimestamp(wall + held - now, UTC) if held > now else None,
    )


def _seconds(at: float, now: float) -> float | None:
    return None if at == math.inf else max(0.0, at - now)


def describe(status: RateLimitStatus) -> str:
    """Return the status in one line.

    >>> from gather_async.models.rate_limit import WindowStatus
    >>> window = WindowStatus(limit=100, period=60.0, used=3, remaining=97)
    >>> describe(RateLimitStatus(windows=(window,), in_flight=2))
    '3/100 in 60 s, 2 in flight, 0+0 queued, free now'
    """
    parts = [
        f"{each.used}/{each.limit} in {each.period:g} s" + " (learned)" * each.learned
        for each in status.windows
    ]
    parts.append(f"{status.in_flight} in flight")
    parts.append(f"{status.queued.interactive}+{status.queued.bulk} queued")
    if status.next_slot is None:
        parts.append("free after an answer")
    else:
        parts.append(f"free in {status.next_slot:.1f} s" if status.next_slot else "free now")
    if status.held_until is not None:
        parts.append(f"held until {status.held_until:%H:%M:%S}Z")
    return ", ".join(parts)
