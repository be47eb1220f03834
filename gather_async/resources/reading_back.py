"""Reading what a write made, where its own answer doesn't say."""

from collections.abc import Iterator
from contextlib import contextmanager

from gather_async.errors import GatherError, ResponseDecodeError

__all__ = ["reading_back"]


@contextmanager
def reading_back(done: str) -> Iterator[None]:
    """Let no failure to read look as if the write before it had failed.

    A read that fails is safe to try again, and a short quota refuses it before anything
    is sent; a caller who took either for the write would invite somebody twice.

    Raises:
        ResponseDecodeError: Reading failed; ``maybe_processed`` is True.
    """
    try:
        yield
    except ResponseDecodeError as error:
        error.maybe_processed = True
        raise
    except GatherError as error:
        raise ResponseDecodeError(
            f"The server said that {done}, but reading it back failed with "
            f"{type(error).__name__}: read it before you do it again.",
            body="",
            path="$",
            maybe_processed=True,
        ) from error
