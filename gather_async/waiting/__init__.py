"""Coalesced polling shared by all waits of a client, woken by webhooks."""

from gather_async.waiting.conditions import Listener, Signals
from gather_async.waiting.coordinator import Waits

__all__ = ["Listener", "Signals", "Waits"]
