"""Waits in the order in which they end."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

from gather_async.waiting.waiter import Waiter

__all__ = ["as_each_ends"]

T = TypeVar("T")


async def as_each_ends(waiters: Sequence[Waiter[T]]) -> "AsyncGenerator[asyncio.Future[T], None]":
    """Give the future of each wait, done, without a task for each.

    Cancelling it ends nothing but itself.
    """
    ended: asyncio.Queue[asyncio.Future[T]] = asyncio.Queue()
    for waiter in waiters:
        waiter.future.add_done_callback(ended.put_nowait)
    try:
        for _ in waiters:
            yield await ended.get()
    finally:
        for waiter in waiters:
            waiter.future.remove_done_callback(ended.put_nowait)
