"""Reading X-RateLimit-*: nothing a server sends breaks it or widens the quota."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gather_async.protocol.rolling_windows import RateLimit, RollingWindows
from gather_async.protocol.server_quota import (
    ServerQuota,
    ServerQuotaTracker,
    read_rate_headers,
    read_reset_after,
)


def _headers(limit: str, remaining: str, reset: str | None = None) -> dict[str, str]:
    headers = {"X-RateLimit-Limit": limit, "X-RateLimit-Remaining": remaining}
    return headers if reset is None else {**headers, "X-RateLimit-Reset": reset}


def test_the_documented_headers_are_read() -> None:
    """Limit, remaining and reset come as numbers."""
    assert read_rate_headers(_headers("1000", "742", "1767225660")) == ServerQuota(
        1000, 742, 1767225660.0
    )


@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
def test_names_are_found_in_any_case(spell: object) -> None:
    """A plain dict in any case reads like aiohttp's case-insensitive mapping."""
    headers = _headers("10", "3")
    spelled = {spell(name): value for name, value in headers.items()}  # type: ignore[operator]  # a str method
    assert read_rate_headers(spelled) == ServerQuota(10, 3)
    assert read_rate_headers(CIMultiDict(spelled)) == ServerQuota(10, 3)


@pytest.mark.parametrize(
    ("limit", "remaining"),
    [("", "1"), ("x", "1"), ("10", ""), ("10", "few"), ("0", "0"), ("-5", "1"), ("1e3", "1")],
)
def test_what_makes_no_sense_says_nothing(limit: str, remaining: str) -> None:
    """A limit or a remainder that isn't a number is as if absent."""
    assert read_rate_headers(_headers(limit, remaining)) is None


@pytest.mark.parametrize(
    "headers", [{}, {"X-RateLimit-Limit": "5"}, {"X-RateLimit-Remaining": "5"}]
)
def test_half_of_the_headers_say_nothing(headers: dict[str, str]) -> None:
    """Both the limit and the remainder are needed."""
    assert read_rate_headers(headers) is None


@pytest.mark.parametrize(
    ("remaining", "read"), [("-3", 0), ("0", 0), ("10", 10), ("99", 10), (" 7 ", 7), ("7;w=60", 7)]
)
def test_the_remainder_stays_within_the_limit(remaining: str, read: int) -> None:
    """A server can't make the quota look larger than the limit it names."""
    assert read_rate_headers(_headers("10", remaining)) == ServerQuota(10, read)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1767225660", 1767225660.0),
        ("1767225660.5", 1767225660.5),
        ("1767225660000", 1767225660.0),
        ("60", None),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_the_reset_is_unix_seconds_or_nothing(reset: str, seconds: float | None) -> None:
    """Milliseconds are recognised by size; what can't be a date is left out."""
    quota = read_rate_headers(_headers("10", "3", reset))
    assert quota is not None
    assert quota.reset_at == seconds


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("3", 3.0), (" 2.5s ", 2.5), ("0", 0.0), ("1767225660", None), ("soon", None), (None, None)],
)
def test_a_reset_that_is_no_date_is_relative(reset: str | None, seconds: float | None) -> None:
    """A small number is seconds from now, not a time in 1970."""
    headers = {} if reset is None else {"x-ratelimit-reset": reset}
    assert read_reset_after(headers) == seconds


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_the_reading(limit: str, remaining: str, reset: str) -> None:
    """Any text gives a quota within its limit, or None."""
    quota = read_rate_headers(_headers(limit, remaining, reset))
    assert quota is None or 0 <= quota.remaining <= quota.limit


def test_of_windows_with_one_limit_the_likeliest_is_corrected() -> None:
    """Headers name a limit, not its period: what was sent before tells which one they mean."""
    windows = RollingWindows([RateLimit(10, per=1), RateLimit(10, per=60)])
    tracker = ServerQuotaTracker(windows)
    for _ in range(4):
        windows.sent()
        windows.answered(0.0)
    windows.sent()
    quota = ServerQuota(10, 2)  # eight were counted: our five, and three of others
    tracker.observe(quota, sent_at=10.0, now=10.1, reset_in=None)
    assert [each.external for each in windows.windows] == [0, 3]


def test_a_learned_limit_gets_another_period_if_that_fits_better() -> None:
    """The first answer fits every period; the shortest is taken until another explains more."""
    windows = RollingWindows([RateLimit(100, per=1), RateLimit(1000, per=60)])
    tracker, periods = ServerQuotaTracker(windows), list[float]()
    for at, remaining in ((0.0, 6), (10.0, 5)):
        windows.sent()
        tracker.observe(ServerQuota(7, remaining), sent_at=at, now=at, reset_in=None)
        windows.answered(at)
        periods.append(windows.windows[-1].period)
    assert periods == [1, 60]
    assert windows.used(windows.windows[-1], 10.0) == 2
