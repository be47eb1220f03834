"""Doubles of the Gather API for tests: a real server on loopback, and a clock that jumps.

Names are loaded when first used, because pytest imports this package in every
run where this package is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gather_async.testing.clock import VirtualClock
    from gather_async.testing.fake.gather import FakeGather
    from gather_async.testing.fake.messages import ReceivedRequest
    from gather_async.testing.fake.state import AudioWords, Invite
    from gather_async.testing.fake.webhooks import Delivery, WebhookTarget

__all__ = [
    "AudioWords",
    "Delivery",
    "FakeGather",
    "Invite",
    "ReceivedRequest",
    "VirtualClock",
    "WebhookTarget",
]

_HOMES = {
    "AudioWords": "fake.state",
    "Delivery": "fake.webhooks",
    "FakeGather": "fake.gather",
    "Invite": "fake.state",
    "ReceivedRequest": "fake.messages",
    "VirtualClock": "clock",
    "WebhookTarget": "fake.webhooks",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
