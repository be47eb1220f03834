"""Coalesced polling shared by all waits of a client, woken by webhooks."""

from gather_async.waiting.signals import Listener, Signals
from gather_async.waiting.waits import Waits

__all__ = ["Listener", "Signals", "Waits"]
