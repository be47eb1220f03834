"""One run of one handler, with a deadline."""

import asyncio
import logging
import traceback

from gather_async.clock import Clock
from gather_async.webhooks.handlers import Handler
from gather_async.webhooks.inbox import Task

__all__ = ["run_handler"]

_log = logging.getLogger("gather_async.webhooks")

_STUBBORN = 5.0  # real seconds to wait for a handler that swallows its cancellation


async def run_handler(handler: Handler, task: Task, timeout: float, clock: Clock) -> str | None:
    """Run a handler; return None if it succeeded, else the failure with its traceback.

    Cancelling it cancels the handler and waits for its end.
    """
    run = asyncio.create_task(_call(handler, task), name=f"webhook handler {handler.name}")
    deadline = asyncio.Event()

    def expire() -> None:
        deadline.set()
        run.cancel()

    timer = clock.call_later(timeout, expire)
    try:
        await asyncio.wait([run])
    except asyncio.CancelledError:
        run.cancel()
        await asyncio.wait([run], timeout=_STUBBORN)
        raise
    finally:
        timer.cancel()
    failure = _failure_of(run, timeout if deadline.is_set() else None)
    if failure is not None:
        _log.warning(
            "The webhook handler %s failed on %s: %s (failure %d); the debug log says where",
            handler.name,
            task.event.key,
            failure.partition("\n")[0].partition(":")[0],
            task.failures + 1,
        )
        _log.debug("%s", failure)
    return failure


async def _call(handler: Handler, task: Task) -> None:
    await handler.function(task.event.decode())


def _failure_of(run: "asyncio.Task[None]", timeout: float | None) -> str | None:
    """Return what went wrong in a run that is over: its kind first, then the traceback."""
    if run.cancelled():
        if timeout is not None:
            return f"TimeoutError: it took longer than {timeout:g} seconds"
        return "CancelledError: it was cancelled from within"
    error = run.exception()
    if error is None:
        return None
    return f"{type(error).__name__}: {error}\n" + "".join(traceback.format_exception(error))
