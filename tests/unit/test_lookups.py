"""What look-ups prove of a write whose fate is unknown."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gather_async.models.candidate import Candidate, CandidateInterview
from gather_async.protocol.reconciliation import LookupResult, Reconciliation, Verdict, began_at
from gather_async.protocol.requests import Lookup, Request

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
LIST = Request(method="GET", path="/qsi/gather/candidate-interviews")
SENT = {"firstName": "Ada", "email": "ada@example.com", "phone": "+12025550123"}


def read(_: str) -> Request:
    """Return the request of a single read."""
    return LIST


def invite(before: frozenset[str] | None = None) -> Lookup:
    """Return the look-up of an invite of c1."""
    return Lookup(
        request=LIST,
        read=read,
        plural="candidateInterviews",
        singular="candidateInterview",
        model=CandidateInterview,
        filter={"candidateId": "c1"},
        before=before,
    )


PERSON = Lookup(
    request=LIST,
    read=read,
    plural="candidates",
    singular="candidate",
    model=Candidate,
    filter={"externalId": "ref"},
    sent=SENT,
)


def at(seconds: float) -> str:
    """Return a time this long after the write began, as the server writes it."""
    return datetime.fromtimestamp(BEGAN + seconds, UTC).isoformat()


def item(created: float | None = None, candidate: str = "c1", id: str = "i1") -> dict[str, Any]:
    """Return a listed invite, made this long after the write began."""
    made = {"id": id, "candidateId": candidate}
    return made if created is None else {**made, "createdAt": at(created)}


def person(**shown: Any) -> dict[str, Any]:
    """Return a listed candidate under the reference."""
    return {"id": "p1", "externalId": "ref", **shown}


def answer(*items: Any, **pagination: int) -> dict[str, Any]:
    """Return a list response."""
    return {"data": [*items], "meta": {"pagination": pagination} if pagination else {}}


def verdict(payload: Any, lookup: Lookup | None = None, *, began: float | None = BEGAN) -> Verdict:
    """Return what one list response proves by itself."""
    return Reconciliation(lookup or invite()).record_list(payload, began=began).verdict


@pytest.mark.parametrize(
    ("payload", "proven"),
    [
        (answer(), Verdict.ABSENT),
        ({"data": []}, Verdict.ABSENT),
        ({"data": {"candidateInterviews": []}}, Verdict.ABSENT),
        (answer(total=0, totalPages=0), Verdict.ABSENT),
        (answer(item(0.0)), Verdict.FOUND),
        (answer(item(+30)), Verdict.FOUND),
        # Whole seconds make it look a little older.
        (answer(item(-1.5)), Verdict.FOUND),
        # The database's clock may differ: neither proven nor ruled out.
        (answer(item(-5)), Verdict.UNPROVEN),
        (answer(item(-50)), Verdict.UNPROVEN),
        # An older invite of the same person is another one.
        (answer(item(-3600)), Verdict.ABSENT),
        (answer(item(-3600), total=1), Verdict.ABSENT),
        (answer(item(-3600), totalPages=1), Verdict.ABSENT),
        (answer(item(-3600), item(1.0, id="i2")), Verdict.FOUND),
        # Without a date it may be either: its single read may say more.
        (answer(item()), Verdict.UNREAD),
        (answer({**item(), "createdAt": "yesterday"}), Verdict.UNPROVEN),
        (answer({**item(), "inviteSentAt": at(-3600)}), Verdict.ABSENT),
        (answer({**item(), "updatedAt": at(-3600)}), Verdict.ABSENT),
        # Sent again since: that doesn't tell when it was created.
        (answer({**item(), "inviteSentAt": at(1)}), Verdict.UNREAD),
        (answer({"id": "i1", "createdAt": at(1)}), Verdict.UNREAD),
        (answer({"candidateId": "c1"}), Verdict.UNPROVEN),
        (answer(*[item(id=str(each)) for each in range(4)]), Verdict.UNPROVEN),
        # The filter was ignored.
        (answer(item(1, candidate="other"), item(1)), Verdict.FOUND),
        (answer(item(1, candidate="other")), Verdict.UNPROVEN),
        (answer(item(-3600), item(1, candidate="other")), Verdict.UNPROVEN),
        # There is more than this page, or may be.
        (answer(item(1), total=500, totalPages=50), Verdict.FOUND),
        (answer(total=1), Verdict.UNPROVEN),
        (answer(totalPages=2), Verdict.UNPROVEN),
        (answer(item(-3600), total=2), Verdict.UNPROVEN),
        (answer(item(-3600), total=1, totalPages=2), Verdict.UNPROVEN),
        (answer(item(), total=2), Verdict.UNPROVEN),
        (answer(*[item(-3600, id=str(each)) for each in range(9)]), Verdict.ABSENT),
        (answer(*[item(-3600, id=str(each)) for each in range(10)]), Verdict.UNPROVEN),
        # Not a list of objects at all.
        (None, Verdict.UNPROVEN),
        ([], Verdict.UNPROVEN),
        ([item(1)], Verdict.UNPROVEN),
        ("ok", Verdict.UNPROVEN),
        ({}, Verdict.UNPROVEN),
        ({"data": None}, Verdict.UNPROVEN),
        ({"data": {}}, Verdict.UNPROVEN),
        ({"data": {"candidates": []}}, Verdict.UNPROVEN),
        ({"data": [None]}, Verdict.UNPROVEN),
        ({"data": [item(1), "x"]}, Verdict.UNPROVEN),
    ],
)
def test_what_one_list_proves_of_an_invite(payload: Any, proven: Verdict) -> None:
    """Found, absent, or not proven either way; only absence allows a second request."""
    assert verdict(payload) is proven


@pytest.mark.parametrize(
    ("shown", "proven"),
    [
        # The very values that were sent, however old: a reference names one person.
        ({**SENT, "createdAt": at(-9e6)}, Verdict.FOUND),
        ({**SENT, "email": "ADA@example.com "}, Verdict.FOUND),
        ({"email": "ada@example.com"}, Verdict.FOUND),
        # Another person under the same reference.
        ({**SENT, "email": "eve@example.com"}, Verdict.ABSENT),
        ({**SENT, "email": "eve@example.com", "createdAt": at(1)}, Verdict.ABSENT),
        # The list leaves out, or writes in another way, what would prove it.
        ({}, Verdict.UNREAD),
        ({"createdAt": at(1)}, Verdict.UNREAD),
        ({"createdAt": at(-9e6)}, Verdict.UNREAD),
        ({**SENT, "phone": "(202) 555-0123"}, Verdict.UNREAD),
        ({**SENT, "phone": 12025550123}, Verdict.UNREAD),
    ],
)
def test_what_one_list_proves_of_a_candidate(shown: dict[str, Any], proven: Verdict) -> None:
    """A candidate is known by what was sent, not by the reference alone."""
    assert verdict(answer(person(**shown)), PERSON) is proven


@pytest.mark.parametrize(
    ("shown", "proven"),
    [
        (person(**SENT), Verdict.FOUND),
        (person(**{**SENT, "email": "eve@example.com"}), Verdict.ABSENT),
        (person(**{**SENT, "phone": "(202) 555-0123"}, createdAt=at(1)), Verdict.FOUND),
        (person(**{**SENT, "phone": "+12025550199"}, createdAt=at(-3600)), Verdict.ABSENT),
        (person(**{**SENT, "phone": "+12025550199"}), Verdict.UNPROVEN),
        (person(createdAt=at(1)), Verdict.FOUND),
        (person(), Verdict.UNPROVEN),
        ({"id": "p1", "externalId": "other"}, Verdict.UNPROVEN),
    ],
)
def test_a_single_read_decides_what_the_list_left_open(
    shown: dict[str, Any], proven: Verdict
) -> None:
    """The object itself proves what its list item doesn't show."""
    evidence = Reconciliation(PERSON)
    listed = answer(person())
    assert evidence.record_list(listed, began=BEGAN).ids == ("p1",)
    result = evidence.record_reads(listed, {"p1": {"data": shown}}, began=BEGAN)
    assert result.verdict is proven
    # What it showed is kept: the next look-up needs no second read.
    assert evidence.record_list(listed, began=BEGAN).verdict is proven


def test_a_single_read_of_another_object_proves_nothing() -> None:
    """A response to another request is not evidence."""
    evidence = Reconciliation(invite())
    listed = answer(item())
    evidence.record_list(listed, began=BEGAN)
    other = {"data": {"candidateInterview": item(1, id="i2")}}
    assert evidence.record_reads(listed, {"i1": other}, began=BEGAN).verdict is Verdict.UNREAD


def test_an_old_invite_without_a_date_is_not_the_lost_one() -> None:
    """Its single read says when it was made; without that, nothing is proven."""
    listed = answer(item())
    for dated, proven in [(item(-9e5), Verdict.ABSENT), (item(), Verdict.UNPROVEN)]:
        evidence = Reconciliation(invite())
        assert evidence.record_list(listed, began=BEGAN).verdict is Verdict.UNREAD
        single = {"i1": {"data": dated}}
        assert evidence.record_reads(listed, single, began=BEGAN).verdict is proven


def test_what_was_not_there_before_is_the_lost_one() -> None:
    """An undated invite that a whole list after the attempt lacked is new."""
    evidence = Reconciliation(invite())
    old = {**item(), "createdAt": "?"}
    new = {**item(id="i2"), "createdAt": "?"}
    assert evidence.record_list(answer(old), began=BEGAN).verdict is Verdict.UNPROVEN
    assert evidence.record_list(answer(old, new), began=BEGAN) == LookupResult(Verdict.FOUND, new)


def test_what_the_caller_saw_before_decides_without_a_clock() -> None:
    """With the ids of before, an object is old or new by its id alone."""
    assert verdict(answer(item()), invite(frozenset({"i1"})), began=None) is Verdict.ABSENT
    assert verdict(answer(item()), invite(frozenset()), began=None) is Verdict.FOUND


def test_an_invite_that_another_call_returned_is_not_the_lost_one() -> None:
    """A second invite within a second isn't mistaken for the first."""
    evidence = Reconciliation(invite(), claimed={"i1"})
    assert evidence.record_list(answer(item(1)), began=BEGAN).verdict is Verdict.ABSENT


def test_the_newest_of_several_is_taken() -> None:
    """Of what may be it, the youngest is."""
    listed = answer(item(3, id="older"), item(8, id="newest"), item(5, id="between"))
    result = Reconciliation(invite()).record_list(listed, began=BEGAN)
    assert result == LookupResult(Verdict.FOUND, listed["data"][1])


def test_the_servers_own_clock_decides_what_is_recent() -> None:
    """``meta.timestamp`` goes before the ``Date`` header; this machine's clock has no say."""
    assert began_at({"meta": {"timestamp": at(0)}}, 5.0, 10.0) == BEGAN - 10.0
    assert began_at({"meta": {"timestamp": "soon"}}, 50.0, 10.0) == 40.0
    assert began_at([], 50.0, 10.0) == 40.0
    assert began_at({}, None, 10.0) is None


def test_without_any_clock_an_old_invite_cannot_be_reported_from_a_new_one() -> None:
    """Then nothing is proven: neither is the old one returned, nor a second one made."""
    assert verdict(answer(item(1)), began=None) is Verdict.UNPROVEN
    assert verdict(answer(item(-9e6)), began=None) is Verdict.UNPROVEN
    assert verdict(answer(), began=None) is Verdict.ABSENT
    assert verdict(answer(person(**SENT)), PERSON, began=None) is Verdict.FOUND


def test_evidence_shows_no_personal_data() -> None:
    """No repr shows what was sent, asked for or found."""
    evidence = Reconciliation(PERSON)
    result = evidence.record_list(answer(person(**SENT)), began=BEGAN)
    for text in (repr(result), repr(PERSON), repr(evidence)):
        assert "ada" not in text.lower()
        assert "2025550123" not in text


listed_items = st.builds(
    item,
    st.none() | st.floats(min_value=-1e5, max_value=1e3),
    st.sampled_from(["c1", "other"]),
    st.text(max_size=3),
)
paginations = st.dictionaries(
    st.sampled_from(["total", "totalPages", "limit"]), st.integers(min_value=0, max_value=30)
)


@example(looks=[([], {}), ([item(None, "c1", "")], {}), ([item(None, "c1", "")], {})], began=None)
@example(looks=[([item(None, "other", "")], {}), ([item(None, "c1", "")], {})], began=None)
@given(
    looks=st.lists(
        st.tuples(st.lists(listed_items | st.none() | st.integers(), max_size=12), paginations),
        min_size=1,
        max_size=3,
    ),
    began=st.none() | st.just(BEGAN),
)
def test_neither_absence_nor_presence_is_claimed_wrongly(
    looks: list[tuple[list[Any], dict[str, int]]], began: float | None
) -> None:
    """ABSENT means a whole, filtered list of older objects; FOUND a newer or an appeared one."""
    evidence = Reconciliation(invite())
    seen: set[str] = set()
    for items, pagination in looks:
        result = evidence.record_list(answer(*items, **pagination), began=began)
        if result.verdict is Verdict.FOUND:
            found: Mapping[str, Any] = result.item or {}
            assert found in items
            assert found["candidateId"] == "c1"
            created = found.get("createdAt")
            is_after = created and datetime.fromisoformat(created).timestamp() >= BEGAN - 2.001
            assert is_after or found["id"] not in seen
        if result.verdict is Verdict.ABSENT:
            assert all(each["candidateId"] == "c1" for each in items)
            assert pagination.get("total", 0) <= len(items)
            assert pagination.get("totalPages", 0) <= 1
            assert not items or began is not None
        seen |= {each["id"] for each in items if isinstance(each, dict)}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["data", "meta", "timestamp", "createdAt", "candidateId", "id"]),
                inner,
            )
        ),
        max_leaves=10,
    )
)
def test_any_json_gives_a_verdict(payload: Any) -> None:
    """No response makes a look-up fail, and one without a list proves nothing."""
    proven = verdict(payload, began=began_at(payload, BEGAN, 0.0))
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, list | dict):
        assert proven is Verdict.UNPROVEN
