"""Time as a dependency, so that hours of quota can pass in milliseconds."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock", "Timer"]


class Timer(Protocol):
    """A callback that is due; what ``loop.call_later`` returns fits."""

    def cancel(self) -> None:
        """Keep the callback from being called; harmless if it already was."""
        ...


class Clock(Protocol):
    """What the package knows of time. `SystemClock` is the default."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Return Unix seconds; may jump either way."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds of `monotonic`; at once if not positive."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back once in the running loop, after that many seconds of `monotonic`."""
        ...


class SystemClock:
    """The machine's own clock and the running loop's timers."""

    # The functions themselves: several calls a request are worth no frame each.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        """Sleep in the running loop."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back from the running loop."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    def __repr__(self) -> str:
        return "SystemClock()"
