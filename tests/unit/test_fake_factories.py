"""The ready-made objects for users' tests."""

from gather_async.models import AudioState, CandidateInterviewStatus
from gather_async.phone import PhonePolicy, to_e164
from gather_async.testing import factories
from gather_async.webhooks import verify


def test_a_number_is_always_the_same_person() -> None:
    """Numbers make repeatable persons, each with its own reference and email."""
    people = list(factories.make_new_candidates(250))
    assert people[7] == factories.make_new_candidate(7)
    assert len({person.external_id for person in people}) == 250
    assert len({person.email for person in people}) == 250
    assert factories.make_candidate(7).external_id == people[7].external_id


def test_phone_numbers_pass_the_strictest_policy() -> None:
    """The numbers are valid ones, kept free for fiction."""
    for person in factories.make_new_candidates(100):
        assert to_e164(person.phone, policy=PhonePolicy.VALID) == person.phone
        assert person.phone.startswith("+120255501")


def test_changes_replace_fields() -> None:
    """Every factory takes the fields of its class."""
    assert factories.make_new_candidate(sms_opt_in=None).sms_opt_in is None
    assert factories.make_interview(title="Other").title == "Other"
    assert factories.make_results(summary=None).summary is None
    question = factories.make_question(transcription_status="error", audio_url=None)
    assert question.audio_state is AudioState.FAILED
    link = factories.make_candidate_interview(status=CandidateInterviewStatus.HIRED)
    assert link.status is CandidateInterviewStatus.HIRED


def test_ids_differ() -> None:
    """No two objects have one id."""
    makers = (
        factories.make_question,
        factories.make_interview,
        factories.make_candidate,
        factories.make_candidate_interview,
    )
    assert len({make().id for make in makers for _ in range(5)}) == 20


def test_a_delivery_is_signed() -> None:
    """The endpoint that knows the secret trusts it, with the data given or some made up."""
    for data in (None, {"interviewId": "i"}):
        body, headers = factories.make_delivery("interview.created", "s3cret", data)
        event = verify(body, headers["X-Qualifi-Signature"], secret="s3cret")
        assert event.event == "interview.created"
        assert data is None or event.data == data
