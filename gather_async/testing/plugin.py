"""pytest fixtures ``fake_gather`` and ``gather_client``, for pytest-asyncio and anyio.

pytest loads this module in every run of a project that has the package installed, so
it imports as little as it can.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from gather_async.client import GatherClient
    from gather_async.testing.fake.gather import FakeGather

try:
    from pytest_asyncio import fixture as asyncio_fixture
except ImportError:  # then anyio runs the fixtures
    asyncio_fixture = None  # type: ignore[assignment]  # looked at below

_AsyncFixture = Callable[..., AsyncIterator[Any]]

_LOOP_SCOPES: Sequence[Literal["function", "class", "module", "package", "session"]] = (
    "function",
    "class",
    "module",
    "package",
    "session",
)
# The options that a test's marker gives to FakeGather.
_MARKER = (
    "fake_gather(**options): options of FakeGather for the test's fixture, such as edition='B'"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def fake_gather(request: pytest.FixtureRequest) -> "FakeGather":
    """A fresh `FakeGather` on a random port: edition A, without rate limits.

    ``@pytest.mark.fake_gather(edition="B", audio_seconds=0)`` gives it other options.
    """
    fake: FakeGather = request.getfixturevalue(f"_fake_gather_{_runner(request)}")
    return fake


@pytest.fixture
def gather_client(request: pytest.FixtureRequest) -> "GatherClient":
    """A `GatherClient` connected to the same test's ``fake_gather``, on its clock."""
    gather: GatherClient = request.getfixturevalue(f"_gather_client_{_runner(request)}")
    return gather


def _runner(request: pytest.FixtureRequest) -> str:
    """Return who runs the test, and so has to run its fixtures: anyio, or a loop of a scope.

    A server in a loop that doesn't run while the test does would never answer it.
    """
    if "anyio_backend" in request.fixturenames:
        return "anyio"
    marker = request.node.get_closest_marker("asyncio")
    scope = marker and marker.kwargs.get("loop_scope")
    return str(scope or request.config.getini("asyncio_default_test_loop_scope"))


def _serving() -> _AsyncFixture:
    """Return a function that serves: pytest-asyncio writes the loop's scope on it."""

    async def serve(request: pytest.FixtureRequest) -> AsyncIterator["FakeGather"]:
        from gather_async.testing.fake.gather import FakeGather  # noqa: PLC0415 - see above

        marker = request.node.get_closest_marker("fake_gather")
        async with FakeGather(**(marker.kwargs if marker else {})) as fake:
            yield fake

    return serve


def _connecting() -> _AsyncFixture:
    """Return a function that connects a client to the test's server."""

    async def connect(fake_gather: "FakeGather") -> AsyncIterator["GatherClient"]:
        async with fake_gather.client() as gather:
            yield gather

    return connect


for _prefix, _make in (("_fake_gather", _serving), ("_gather_client", _connecting)):
    _name = f"{_prefix}_anyio"
    globals()[_name] = pytest.fixture(name=_name)(_make())
    if asyncio_fixture is not None:
        for _scope in _LOOP_SCOPES:
            _name = f"{_prefix}_{_scope}"
            globals()[_name] = asyncio_fixture(name=_name, loop_scope=_scope)(_make())
