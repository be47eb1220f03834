"""The command line, ``gather-async``. It needs the extra ``cli``."""

import gc
import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments after the program's name; None takes the process's own.

    Returns:
        0 done, 1 failed in whole or part, 2 wrong usage, 3 the API key was not
        accepted or is missing, 130 interrupted.
    """
    if importlib.util.find_spec("rich") is None:
        print("The command line needs rich: pip install 'gather-async[cli]'", file=sys.stderr)
        return 2
    try:
        from gather_async.cli.app import run  # noqa: PLC0415 - argparse alone takes as long as the version

        return run(argv)
    except KeyboardInterrupt:  # before the program could say more
        return 130
    finally:
        if argv is None:
            # Python ends a process with searches for garbage among all that was imported: 15 %
            # of a short command.
            gc.freeze()
