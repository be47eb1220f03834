"""One request as an operation of FakeGather sees it."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from gather_async.testing.fake.state import World

__all__ = ["Call"]


@frozen
class Call:
    """A request that passed the key and the quota.

    Attributes:
        world: The server's state.
        path: As it was sent.
        id: From the path, decoded; empty where the path has none.
        query: Each parameter and its values.
        body: Decoded JSON; None without a body.
    """

    world: World
    path: str
    id: str
    query: Mapping[str, Sequence[str]]
    body: Any

    @property
    def created(self) -> int:
        """The status of a successful creation, which is documented nowhere."""
        return self.world.behaviour.created_status

    @property
    def edition(self) -> str:
        """``A`` or ``B``."""
        return self.world.behaviour.edition
