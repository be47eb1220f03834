"""When to look again, and what was seen."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async import (
    AudioState,
    ConfigurationError,
    InvalidRequestError,
    PollPolicy,
    Question,
)
from gather_async.protocol.polling import audio_state, next_interval
from gather_async.waiting.targets import Waiter

AGES = st.floats(min_value=0.0, max_value=1e7)
DRAWS = st.floats(min_value=0.0, max_value=1.0)
POLICIES = st.builds(
    PollPolicy,
    st.floats(min_value=1e-3, max_value=1e3),
    factor=st.floats(min_value=1.0, max_value=1e3),
    cap=st.floats(min_value=1e-3, max_value=1e4),
)


@pytest.mark.parametrize("word", ["complete", "COMPLETED", " Ready ", "success", "done"])
def test_success_words_mean_ready_in_any_case(word: str) -> None:
    """A word of success means ready, whatever its case and the spaces around it."""
    assert audio_state(Question(id="q", transcription_status=word)) is AudioState.READY


@pytest.mark.parametrize("word", ["error", "FAILED", "Failure", "cancelled"])
def test_failure_words_mean_failed(word: str) -> None:
    """A word of failure means failed, even if an audio URL is set."""
    question = Question(id="q", transcription_status=word, audio_url="https://a.invalid/1.mp3")
    assert audio_state(question) is AudioState.FAILED


@pytest.mark.parametrize("word", ["processing", "queued", "", "not complete", "0"])
def test_any_other_word_means_still_running(word: str) -> None:
    """A word in neither set means that it still runs, even if an audio URL is set."""
    question = Question(id="q", transcription_status=word, audio_url="https://a.invalid/1.mp3")
    assert audio_state(question) is AudioState.PROCESSING


@pytest.mark.parametrize(
    ("url", "state"),
    [
        (None, AudioState.PROCESSING),
        ("", AudioState.PROCESSING),
        ("https://a.invalid/1.mp3", AudioState.READY),
    ],
)
def test_without_a_word_the_audio_url_decides(url: str | None, state: AudioState) -> None:
    """Where the server names no state, a set audio URL means ready."""
    assert audio_state(Question(id="q", audio_url=url)) is state


def test_a_policy_replaces_the_words() -> None:
    """The words of a policy are the only ones that count, compared without regard to case."""
    policy = PollPolicy(ready_words={"BAKED"}, failed_words=["Burnt"])
    states = [
        audio_state(Question(id="q", transcription_status=word), policy)
        for word in ("baked", "BURNT", "complete", "error")
    ]
    assert states == [
        AudioState.READY,
        AudioState.FAILED,
        AudioState.PROCESSING,
        AudioState.PROCESSING,
    ]


def test_the_words_of_a_policy_are_compared_without_spaces_around_them() -> None:
    """As those of the server are."""
    assert PollPolicy(ready_words={" Baked "}).ready_words == {"baked"}


def test_what_is_no_policy_is_refused() -> None:
    """A call that is passed something else as its policy says so."""
    wrong: Any = 2.0
    with pytest.raises(InvalidRequestError, match="PollPolicy"):
        PollPolicy.of(wrong)


def test_default_looks_grow_to_the_cap() -> None:
    """Without jitter, looks come at 0, 1, 2.5, 4.75 s, each gap half longer, up to 15 s apart."""
    policy, age, looks = PollPolicy(), 0.0, [0.0]
    while age < 120:
        age += next_interval(policy, age=age, draw=0.0)
        looks.append(age)
    assert looks[:4] == [0.0, 1.0, 2.5, 4.75]
    gaps = [late - early for early, late in pairwise(looks)]
    assert gaps[-3:] == [15.0, 15.0, 15.0]
    assert gaps == sorted(gaps)


@given(policy=POLICIES, age=AGES, draw=DRAWS)
def test_no_interval_is_longer_than_the_cap(policy: PollPolicy, age: float, draw: float) -> None:
    """Jitter shortens an interval by a fifth at most, and nothing exceeds the cap."""
    plain = next_interval(policy, age=age, draw=0.0)
    jittered = next_interval(policy, age=age, draw=draw)
    assert 0 < plain <= policy.cap
    assert plain * 0.8 - 1e-9 <= jittered <= plain


@given(policy=POLICIES, early=AGES, late=AGES, draw=DRAWS)
def test_intervals_never_shrink_with_age(
    policy: PollPolicy, early: float, late: float, draw: float
) -> None:
    """The longer a wait lasts, the longer its intervals."""
    early, late = sorted([early, late])
    assert next_interval(policy, age=early, draw=draw) <= next_interval(policy, age=late, draw=draw)


@given(policy=POLICIES, age=AGES)
def test_slow_polling_uses_the_cap(policy: PollPolicy, age: float) -> None:
    """While events tell of changes, every interval is the cap."""
    assert next_interval(policy, age=age, draw=0.0, is_slow=True) == policy.cap


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 0},
        {"first": -1.0},
        {"first": math.nan},
        {"cap": math.inf},
        {"cap": True},
        {"factor": 0.9},
        {"factor": "2"},
        {"quota_share": 0.0},
        {"quota_share": 1.1},
        {"ready_words": "done"},
        {"ready_words": [1]},
        {"failed_words": 5},
        {"priority": "urgent"},
        {"ready_words": {"Over"}, "failed_words": {"over"}},
    ],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    """Numbers out of range, a word alone and a word with two meanings are refused at once."""
    with pytest.raises(ConfigurationError):
        PollPolicy(**wrong)


@pytest.mark.parametrize(
    ("first", "now", "at"),
    [
        (8.9, 0.0, 8.9),
        (9.2, 0.0, 9.5),  # instead of two polls half a second apart
        (20.0, 0.0, 9.5),
        (1.0, 9.4, 9.5),
        (1.0, 9.5, math.inf),
    ],
)
def test_a_poll_shortly_before_the_final_one_is_the_final_one(
    first: float, now: float, at: float
) -> None:
    """Nothing is polled twice in the time that the final poll has for its answer."""
    waiter = Waiter[Question]("a", PollPolicy(first=first, factor=1.0, cap=99.0), 0.0, 10.0, print)
    when = waiter.next_poll(now, draw=0.0, latency=0.0, is_slow=False, since=math.inf)
    assert when == pytest.approx(at)
