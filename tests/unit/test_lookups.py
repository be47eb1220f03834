"""What a list proves of a write whose answer was lost."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gather_async.protocol.reconciliation import LookupResult, Verdict, evaluate
from gather_async.protocol.requests import Lookup, Request

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
LIST = Request(method="GET", path="/qsi/gather/candidate-interviews")


def is_ours(item: Mapping[str, Any]) -> bool:
    """Whether a listed object is of the candidate that was invited."""
    return item.get("candidateId") == "c1"


INVITE = Lookup(request=LIST, plural="candidateInterviews", matches=is_ours, recent_only=True)
PERSON = Lookup(request=LIST, plural="candidates", matches=is_ours, recent_only=False)


def at(seconds: float) -> str:
    """Return a time this long after NOW, as the server writes it."""
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


def item(created: float | None = None, candidate: str = "c1", id: str = "i1") -> dict[str, Any]:
    """Return a listed object, made this long after NOW."""
    made = {"id": id, "candidateId": candidate}
    return made if created is None else {**made, "createdAt": at(created)}


def answer(*items: Any, **pagination: int) -> dict[str, Any]:
    """Return a list answer, dated NOW."""
    meta: dict[str, Any] = {"timestamp": at(0)}
    return {
        "data": [*items],
        "meta": {**meta, **({"pagination": pagination} if pagination else {})},
    }


def seen(
    payload: Any, lookup: Lookup = INVITE, *, server_now: float | None = None, elapsed: float = 5.0
) -> LookupResult:
    """Look at an answer that came 5 seconds after the write began."""
    return evaluate(lookup, payload, server_now=server_now, elapsed=elapsed)


@pytest.mark.parametrize(
    ("payload", "verdict"),
    [
        (answer(), Verdict.ABSENT),
        ({"data": []}, Verdict.ABSENT),
        ({"data": {"candidateInterviews": []}}, Verdict.ABSENT),
        (answer(total=0, totalPages=0), Verdict.ABSENT),
        (answer(item(-1)), Verdict.FOUND),
        (answer(item(-5)), Verdict.FOUND),
        # Clocks differ a little, and the server may be ahead.
        (answer(item(-50)), Verdict.FOUND),
        (answer(item(+30)), Verdict.FOUND),
        # Without a date it can't be ruled out, and a second invite is the worse mistake.
        (answer(item()), Verdict.FOUND),
        (answer({**item(), "createdAt": "yesterday"}), Verdict.FOUND),
        (answer(item(-1, candidate="other"), item(-1)), Verdict.FOUND),
        (answer(item(-1), total=500, totalPages=50), Verdict.FOUND),
        # An older invite of the same person is another one.
        (answer(item(-3600)), Verdict.ABSENT),
        (answer(item(-3600), total=1), Verdict.ABSENT),
        (answer(item(-3600), totalPages=1), Verdict.ABSENT),
        # The filter was ignored.
        (answer(item(-1, candidate="other")), Verdict.UNPROVEN),
        (answer(item(-3600), item(-1, candidate="other")), Verdict.UNPROVEN),
        # There is more than this page, or may be.
        (answer(total=1), Verdict.UNPROVEN),
        (answer(totalPages=2), Verdict.UNPROVEN),
        (answer(item(-3600), total=2), Verdict.UNPROVEN),
        (answer(item(-3600), total=1, totalPages=2), Verdict.UNPROVEN),
        (answer(*[item(-3600, id=str(each)) for each in range(9)]), Verdict.ABSENT),
        (answer(*[item(-3600, id=str(each)) for each in range(10)]), Verdict.UNPROVEN),
        # Not a list of objects at all.
        (None, Verdict.UNPROVEN),
        ([], Verdict.UNPROVEN),
        ([item(-1)], Verdict.UNPROVEN),
        ("ok", Verdict.UNPROVEN),
        ({}, Verdict.UNPROVEN),
        ({"data": None}, Verdict.UNPROVEN),
        ({"data": {}}, Verdict.UNPROVEN),
        ({"data": {"candidates": []}}, Verdict.UNPROVEN),
        ({"data": [None]}, Verdict.UNPROVEN),
        ({"data": [item(-1), "x"]}, Verdict.UNPROVEN),
    ],
)
def test_what_one_answer_proves_of_an_invite(payload: Any, verdict: Verdict) -> None:
    """Found, absent, or not proven either way; only absence allows a second request."""
    assert seen(payload).verdict is verdict


def test_the_newest_of_several_is_taken() -> None:
    """Of what may be it, the youngest is; one without a date comes last."""
    listed = answer(item(id="undated"), item(-20, id="older"), item(-2, id="newest"))
    assert seen(listed) == LookupResult(Verdict.FOUND, listed["data"][2])


def test_a_long_retry_still_finds_what_its_first_attempt_made() -> None:
    """An object is recent if it is younger than the write, however long that took."""
    assert seen(answer(item(-600)), elapsed=700.0).verdict is Verdict.FOUND
    assert seen(answer(item(-600)), elapsed=5.0).verdict is Verdict.ABSENT


def test_the_servers_own_clock_decides_what_is_recent() -> None:
    """``meta.timestamp`` goes before the ``Date`` header; this machine's clock has no say."""
    undated = {"data": [item(-3600)]}
    assert seen(undated, server_now=NOW).verdict is Verdict.ABSENT
    assert seen(undated, server_now=NOW - 3600).verdict is Verdict.FOUND
    assert seen(answer(item(-3600)), server_now=NOW - 3600).verdict is Verdict.ABSENT
    broken = {"data": [item(-3600)], "meta": {"timestamp": "soon"}}
    assert seen(broken, server_now=NOW).verdict is Verdict.ABSENT


@pytest.mark.parametrize("meta", [None, "x", {}, {"timestamp": None}, {"timestamp": 5}])
def test_without_any_clock_an_old_invite_cannot_be_told_from_a_new_one(meta: Any) -> None:
    """Then nothing is proven: neither is the old one returned, nor a second one made."""
    assert seen({"data": [item(-1)], "meta": meta}).verdict is Verdict.UNPROVEN
    assert seen({"data": [], "meta": meta}).verdict is Verdict.ABSENT


def test_a_candidate_with_the_reference_is_found_however_old() -> None:
    """A reference names one person, so age doesn't matter and no clock is needed."""
    listed = {"data": {"candidates": [item(-9e6)]}}
    assert seen(listed, PERSON) == LookupResult(Verdict.FOUND, item(-9e6))
    assert seen({"data": {"candidates": []}}, PERSON).verdict is Verdict.ABSENT
    others = {"data": {"candidates": [item(candidate="other")]}}
    assert seen(others, PERSON).verdict is Verdict.UNPROVEN


def test_a_look_shows_no_personal_data() -> None:
    """The repr of what was seen leaves the object out."""
    assert "c1" not in repr(seen(answer(item(-1))))


listed_items = st.builds(
    item,
    st.none() | st.floats(min_value=-1e5, max_value=1e3),
    st.sampled_from(["c1", "other"]),
    st.text(max_size=3),
)
paginations = st.dictionaries(
    st.sampled_from(["total", "totalPages", "limit"]), st.integers(min_value=0, max_value=30)
)


@given(
    items=st.lists(listed_items | st.none() | st.integers(), max_size=12),
    pagination=paginations,
    dated=st.booleans(),
    server_now=st.none() | st.floats(min_value=NOW - 1e4, max_value=NOW + 1e4),
    elapsed=st.floats(min_value=0, max_value=1e4),
    lookup=st.sampled_from([INVITE, PERSON]),
)
def test_absence_is_never_claimed_wrongly(
    *,
    items: list[Any],
    pagination: dict[str, int],
    dated: bool,
    server_now: float | None,
    elapsed: float,
    lookup: Lookup,
) -> None:
    """ABSENT means: a whole, filtered list, in which nothing may be what the write made."""
    payload = answer(*items, **pagination)
    if not dated:
        del payload["meta"]["timestamp"]
    seen_now = evaluate(lookup, payload, server_now=server_now, elapsed=elapsed)
    now = NOW if dated else server_now
    if seen_now.verdict is Verdict.FOUND:
        assert seen_now.item in items
        assert is_ours(seen_now.item or {})
    if seen_now.verdict is Verdict.ABSENT:
        assert all(isinstance(each, dict) and is_ours(each) for each in items)
        assert pagination.get("total", 0) <= len(items)
        assert pagination.get("totalPages", 0) <= 1
        assert lookup.recent_only or not items
        for each in items:
            assert now is not None
            made = datetime.fromisoformat(each["createdAt"]).timestamp()
            assert made < now - elapsed


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "meta", "timestamp", "createdAt", "candidateId"]), inner
            )
        ),
        max_leaves=10,
    )
)
def test_any_json_gives_a_verdict(payload: Any) -> None:
    """No answer makes looking fail, and one without a list proves nothing."""
    verdict = seen(payload, server_now=NOW).verdict
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, list | dict):
        assert verdict is Verdict.UNPROVEN
