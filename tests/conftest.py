"""Settings that every test shares."""

import fcntl
import gc
import os
import secrets
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers", "tests.leaks", "tests.rooms"]

_LONG = 900.0  # seconds for a test of full size, on a busy machine

# The machine may be busy: a law is broken by a counterexample, not by a slow example.
_SLOW = [HealthCheck.too_slow]
# The same examples each time, so that no change fails by chance; few, as -m fuzz tries many.
settings.register_profile(
    "same", deadline=None, suppress_health_check=_SLOW, max_examples=30, derandomize=True
)
# New examples each time, thirty times as many: what they find is repeated with the seed.
settings.register_profile(
    "new", deadline=None, suppress_health_check=_SLOW, max_examples=1000, print_blob=True
)


@pytest.hookimpl(tryfirst=True)  # before Hypothesis reads the seed
def pytest_configure(config: pytest.Config) -> None:
    """Choose the examples of laws: new ones with ``-m fuzz`` only."""
    if _is_fuzz_run(config) and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))
    settings.load_profile("new" if _is_fuzz_run(config) else "same")
    # A hundred children import the package: a shell that wants no bytecode (`__pycache__` is
    # ignored by git) would have each of them, and each worker, compile all of it again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # No test trusts the authorities of the machine, which aiohttp reads as it is imported: a
    # fifth of what a child process takes to start.
    os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Have two workers more than cores: half of the time, tests wait for servers and children."""
    return (yield) + (0 if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else 2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Compile the tests once, and keep them, 300,000 objects, out of searches for garbage."""
    gc.disable()
    try:
        with Path(__file__).open() as lock:
            # Compiling takes longer than collecting: the first worker's code serves the others.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _are_compiled():
                fcntl.flock(lock, fcntl.LOCK_UN)
            return (yield)
    finally:
        gc.freeze()
        # Few cycles are made here: looking for them as often as usual takes 7 % of a test.
        gc.set_threshold(10_000, 20, 50)
        gc.enable()


def _are_compiled() -> bool:
    """Return whether the tests that are collected last have been compiled by this Python."""
    compiled = Path(__file__).with_name("unit") / "__pycache__"
    return any(compiled.glob(f"*.{sys.implementation.cache_tag}-pytest-*"))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how to repeat a run with new examples."""
    if _is_fuzz_run(config):
        seed = config.option.hypothesis_seed
        terminalreporter.write_line(f"Repeat with: -m fuzz --hypothesis-seed={seed}")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let ``-m fuzz`` run the laws, too, and give tests of full size more time."""
    for item in items:
        is_law = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if _is_fuzz_run(config) and is_law:
            item.add_marker("fuzz")
        if item.get_closest_marker("fuzz") or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(_LONG))
    if worker := getattr(config, "workerinput", None):
        _deal_out(items, worker["workercount"])


def _deal_out(items: list[pytest.Item], workers: int) -> None:
    """Let two workers begin with what waits for servers, while the others keep the cores busy.

    One of them alone starts PostgreSQL, which takes a second of CPU. Each worker gets as many
    tests in a row; who is done takes over some of the last ones of another.
    """
    postgres = [item for item in items if "postgres" in item.nodeid]
    redis = [item for item in items if "redis" in item.nodeid and item not in postgres]
    others = [item for item in items if item not in redis and item not in postgres]
    share = len(redis) * 2 // 3
    first, second = redis[:share], redis[share:] + postgres
    rest = max(0, len(items) // workers - len(first))
    items[:] = first + others[:rest] + second + others[rest:]


def _is_fuzz_run(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "fuzz")
