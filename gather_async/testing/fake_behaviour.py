"""How FakeGather decides what the documentation leaves open."""

from collections.abc import Callable, Collection
from typing import Any, Literal

from attrs import Attribute, field, frozen

from gather_async.errors import ConfigurationError
from gather_async.testing.fake.quota import HeadersDescribe

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


def _one_of(*words: object) -> Callable[[object, "Attribute[Any]", object], None]:
    """Return a validator that lets only these values pass."""

    def check(_: object, option: "Attribute[Any]", value: object) -> None:
        if value not in words:
            listed = ", ".join(map(repr, words))
            raise ConfigurationError(f"{option.name} must be one of {listed}, not {value!r}.")

    return check


def _positive(_: object, option: "Attribute[int]", value: int) -> None:
    if not value >= 1:
        raise ConfigurationError(f"{option.name} must be at least 1, not {value!r}.")


@frozen(kw_only=True)
class Behaviour:
    """Every choice in one place; `FakeGather` documents them."""

    edition: Edition = field(default="A", validator=_one_of("A", "B"))
    audio_seconds: float | Callable[[], float] = 0.2
    fail_audio_for: Collection[str] = ()
    audio_words: AudioWords = AudioWords()
    summary_seconds: float = 0.2
    created_status: int = field(default=201, validator=_one_of(200, 201, 202))
    questions_list: QuestionsList = field(
        default="paged", validator=_one_of("paged", "unpaged", "missing", "empty")
    )
    questions_page_size: int = field(default=50, validator=_positive)
    page_counts: bool = True
    duplicate_status: int | None = field(default=None, validator=_one_of(None, 400, 409))
    early_results: Literal["processing", "missing"] = field(
        default="processing", validator=_one_of("processing", "missing")
    )
    strict_users: bool = False
    headers_describe: HeadersDescribe = field(
        default="tightest", validator=_one_of("tightest", "shortest", "longest")
    )
    count_refused: bool = False
