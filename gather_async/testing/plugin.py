"""pytest fixtures ``fake_gather`` and ``gather_client``, for any mode of pytest-asyncio.

pytest loads this module in every run where the package is installed, so it
imports as little as it can.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gather_async.client import GatherClient
    from gather_async.testing.fake.gather import FakeGather

try:
    from pytest_asyncio import fixture
except ImportError:  # without it, the fixtures can't run anyway; pytest says so when one is used
    fixture = pytest.fixture  # type: ignore[assignment]  # used in the same way here


@fixture
async def fake_gather() -> AsyncIterator["FakeGather"]:
    """A fresh `FakeGather` on a random port, edition A, without rate limits."""
    from gather_async.testing.fake.gather import FakeGather  # noqa: PLC0415 - see above

    async with FakeGather() as fake:
        yield fake


@fixture
async def gather_client(fake_gather: "FakeGather") -> AsyncIterator["GatherClient"]:
    """A `GatherClient` connected to the same test's ``fake_gather``."""
    async with fake_gather.client() as gather:
        yield gather
