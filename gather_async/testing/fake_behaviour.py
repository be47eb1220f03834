"""How FakeGather decides what the documentation leaves open."""

from collections.abc import Callable, Collection
from typing import Literal

from attrs import field, frozen
from attrs.validators import in_

from gather_async.errors import ConfigurationError

__all__ = ["AudioWords", "Behaviour", "Edition", "QuestionsList"]

Edition = Literal["A", "B"]
"""Which of the two published wordings the server follows."""

QuestionsList = Literal["paged", "unpaged", "missing", "empty"]
"""What ``GET /qsi/gather/questions`` does; the documentation only shows that it exists."""


@frozen
class AudioWords:
    """The values of ``transcriptionStatus``, which are documented nowhere."""

    processing: str = "processing"
    complete: str = "complete"
    error: str = "error"


def _status(_: object, field: object, value: object) -> None:
    if value not in {200, 201, 202}:
        raise ConfigurationError(f"created_status must be 200, 201 or 202, not {value!r}.")


@frozen(kw_only=True)
class Behaviour:
    """Every choice in one place; `FakeGather` documents them."""

    edition: Edition = field(default="A", validator=in_(("A", "B")))
    audio_seconds: float | Callable[[], float] = 0.2
    fail_audio_for: Collection[str] = ()
    audio_words: AudioWords = AudioWords()
    summary_seconds: float = 0.2
    created_status: int = field(default=201, validator=_status)
    questions_list: QuestionsList = field(
        default="paged", validator=in_(("paged", "unpaged", "missing", "empty"))
    )
    questions_page_size: int = 50
    page_counts: bool = True
    duplicate_status: int | None = field(default=None, validator=in_((None, 400, 409)))
    early_results: Literal["processing", "missing"] = "processing"
    strict_users: bool = False
