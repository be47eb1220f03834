"""Coalesced polling shared by all waits of a client, woken by webhooks."""

from gather_async.waiting.waits import Listener, Signals, Waits

__all__ = ["Listener", "Signals", "Waits"]
