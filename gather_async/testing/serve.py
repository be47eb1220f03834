"""Run FakeGather on its own: ``python -m gather_async.testing.serve --port 8000``.

The command ``gather-async fake-server`` calls `serve`.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable

from gather_async.errors import ConfigurationError
from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing.fake.gather import FakeGather
from gather_async.testing.fake.state import Edition

__all__ = ["main", "serve"]

DOCUMENTED_LIMITS = (RateLimit(100, per=60), RateLimit(1000, per=3600))
"""What production allows each key. Source: /getting-started/rate-limits"""


async def serve(
    *,
    port: int = 0,
    edition: Edition = "A",
    audio_seconds: float = 0.2,
    limited: bool = False,
    api_key: str | None = None,
    on_started: Callable[[FakeGather], object] | None = None,
) -> None:
    """Serve until cancelled.

    Args:
        port: 0: any free one.
        edition: ``"A"`` or ``"B"``.
        audio_seconds: How long audio generation takes.
        limited: Whether the documented rate limits hold.
        api_key: The only key it takes; None makes one.
        on_started: Called once it listens.

    Raises:
        OSError: The port is taken.
        ConfigurationError: ``api_key`` is blank.
    """
    fake = FakeGather(
        port=port,
        edition=edition,
        audio_seconds=audio_seconds,
        rate_limits=DOCUMENTED_LIMITS if limited else None,
        api_key=api_key,
    )
    async with fake:
        if on_started is not None:
            on_started(fake)
        await asyncio.get_running_loop().create_future()


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; Ctrl-C ends it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gather_async.testing.serve")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--edition", choices=("A", "B"), default="A")
    parser.add_argument("--audio-seconds", type=float, default=0.2)
    parser.add_argument("--limited", action="store_true", help="hold the documented rate limits")
    parser.add_argument("--api-key", default=None)
    options = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(serve(on_started=_announce, **vars(options)))
        except (OSError, ConfigurationError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


def _announce(fake: FakeGather) -> None:
    """Print what a client needs, in a form that a shell can evaluate."""
    sys.stdout.write(f"GATHER_BASE_URL={fake.base_url}\nGATHER_API_KEY={fake.api_key}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
