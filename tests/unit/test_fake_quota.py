"""The rolling windows of the fake server."""

from hypothesis import given
from hypothesis import strategies as st

from gather_async.protocol.rolling_windows import RateLimit
from gather_async.testing.fake.state import FakeQuota

GAPS = st.lists(st.integers(0, 40).map(lambda tenths: tenths / 8), max_size=60)
LIMITS = st.lists(
    st.builds(lambda limit, per: RateLimit(limit, per=per), st.integers(1, 6), st.integers(1, 12)),
    min_size=1,
    max_size=3,
)


@given(LIMITS, GAPS, st.booleans())
def test_a_request_is_accepted_exactly_if_each_window_has_room(
    limits: list[RateLimit], gaps: list[float], count_refused: bool
) -> None:
    """Over any history, the verdict is what counting (now - W, now] by hand says."""
    quota = FakeQuota(limits, count_refused=count_refused)
    counted: list[float] = []
    now = 1000.0
    for gap in gaps:
        now += gap
        room = all(
            sum(now - limit.per < at <= now for at in counted) < limit.limit for limit in limits
        )
        verdict = quota.arrive(now)
        assert verdict.accepted is room
        if room or count_refused:
            counted.append(now)
        left = [
            max(limit.limit - sum(now - limit.per < at for at in counted), 0) for limit in limits
        ]
        assert verdict.remaining == min(left)


@given(LIMITS, st.integers(1, 30))
def test_the_reset_of_a_refusal_is_when_every_window_has_room(
    limits: list[RateLimit], tries: int
) -> None:
    """A request refused is accepted at the reset that it was reported, and not before."""
    quota = FakeQuota(limits)
    verdicts = [quota.arrive(1000.0 + number / 8) for number in range(tries)]
    now = 1000.0 + (tries - 1) / 8
    refused = verdicts[-1]
    if refused.accepted:
        assert refused.refused_reset_in == 0.0
        return
    assert refused.refused_reset_in > 0.0
    assert not quota.arrive(now + refused.refused_reset_in - 1 / 16).accepted
    assert quota.arrive(now + refused.refused_reset_in).accepted


def test_a_request_leaves_its_window_exactly_at_its_end() -> None:
    """The window is (now - W, now]: after W seconds sharp, there is room again."""
    quota = FakeQuota([RateLimit(1, per=60)])
    assert quota.arrive(0.0).accepted
    assert not quota.arrive(59.999).accepted
    assert quota.arrive(60.0).accepted


def test_headers_describe_the_window_that_was_asked_for() -> None:
    """The described window is the tightest, the shortest or the longest."""
    limits = [RateLimit(12, per=3600), RateLimit(10, per=60)]
    seen = {}
    for which in ("tightest", "shortest", "longest"):
        quota = FakeQuota(limits, headers_describe=which)
        verdict = [quota.arrive(float(second)) for second in range(0, 600, 60)][-1]
        seen[which] = (verdict.limit, verdict.remaining)
    assert seen == {"tightest": (12, 2), "shortest": (10, 9), "longest": (12, 2)}


def test_looking_counts_nothing() -> None:
    """The headers of a refused key show the quota without using it."""
    quota = FakeQuota([RateLimit(2, per=60)])
    assert quota.arrive(0.0).remaining == 1
    assert quota.peek(1.0).remaining == 1
    assert quota.peek(1.0).reset_in == 59.0
    assert quota.arrive(1.0).remaining == 0


def test_refused_requests_can_be_made_to_count() -> None:
    """With ``count_refused``, trying again too early keeps the window full."""
    quota = FakeQuota([RateLimit(1, per=10)], count_refused=True)
    assert quota.arrive(0.0).accepted
    refused = quota.arrive(5.0)
    assert not refused.accepted
    assert refused.refused_reset_in == 10.0
    assert not quota.arrive(10.0).accepted
