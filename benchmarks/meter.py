"""What a task of another process costs: instructions where valgrind is installed, else CPU time.

Instructions, counted by callgrind, repeat to about 0.1 % on a busy machine, too. CPU time is
only worth something as a ratio of two tasks that took turns.

The other process runs `serve`: it reads names of tasks and how often to do each, one a line.
"""

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

__all__ = ["CAN_COUNT", "Subject", "Task", "serve"]

Task = Callable[[int], Awaitable[object]]
"""Does something that often, one after another."""

CAN_COUNT = None not in {shutil.which("valgrind"), shutil.which("callgrind_control")}
"""Whether instructions can be counted on this machine."""
_WARM_UP = 20  # calls: connections, caches, and what the interpreter specialises
_SECONDS = 60.0  # callgrind answers in 0.2 s where it may


async def serve(tasks: Mapping[str, Task]) -> None:
    """Do tasks as standard input says, until it closes; print the CPU seconds of each."""
    print("serving", flush=True)
    for line in sys.stdin:
        name, count = line.split()
        await tasks[name](_WARM_UP)
        gc.collect()
        gc.freeze()  # collections that fall into a count shall not look at what is older
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.process_time()
        await tasks[name](int(count))
        print(time.process_time() - began, flush=True)


class Subject:
    """A process that serves tasks; use it as a context manager.

    Args:
        arguments: What follows ``python`` on its command line.
        counted: Whether it runs under callgrind, fifty times as slow.
    """

    def __init__(self, arguments: Sequence[str], *, counted: bool) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._dumps = Path(self._folder.name)
        self._counted = counted
        callgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "-q"]
        callgrind += [f"--callgrind-out-file={self._dumps / 'out'}"]
        self._process = subprocess.Popen(
            [*(callgrind if counted else []), sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if counted else None,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # else dictionaries cost now more, now less
            text=True,
        )

    def __enter__(self) -> Self:
        self._receive()  # it serves
        if self._counted:
            self._control("--instr=on")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def cost(self, task: str, count: int) -> float:
        """Return the instructions, or CPU seconds, of doing a task once, of that many."""
        self._send(f"{task} {count}")
        self._receive()
        if self._counted:
            self._control("--zero")
        self._send("go")
        seconds = float(self._receive())
        return (self._counted_since_zero() if self._counted else seconds) / count

    def peak_memory(self) -> float:
        """Return the peak resident set so far, in MB; NaN where the system doesn't say."""
        status = Path(f"/proc/{self._process.pid}/status")
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text() if status.exists() else "")
        return int(found[1]) / 1024 if found else float("nan")

    def _counted_since_zero(self) -> int:
        self._control("--dump")
        (dump,) = self._dumps.glob("out.*")
        found = re.search(r"^totals: (\d+)$", dump.read_text(), re.MULTILINE)
        dump.unlink()
        assert found is not None
        return int(found[1])

    def _control(self, command: str) -> None:
        subprocess.run(
            ["callgrind_control", command, str(self._process.pid)],
            check=True,
            capture_output=True,
            timeout=_SECONDS,
        )

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _receive(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return line
