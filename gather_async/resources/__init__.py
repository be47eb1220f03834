"""Methods that a user calls: one class for each resource of the API."""

from typing import Any, cast

from gather_async import endpoint
from gather_async.pager import Page, Pager
from gather_async.phone import PhonePolicy
from gather_async.resources.candidate_interviews import CandidateInterviews
from gather_async.resources.candidates import Candidates
from gather_async.resources.interviews import Interviews
from gather_async.resources.organization import MessageGroups, Narrators, Teams, Users
from gather_async.resources.questions import Questions
from gather_async.resources.resource import Resource
from gather_async.session import Session
from gather_async.waiting import Waits

__all__ = [
    "CandidateInterviews",
    "Candidates",
    "Interviews",
    "MessageGroups",
    "Narrators",
    "Page",
    "Pager",
    "Questions",
    "Resource",
    "Resources",
    "Teams",
    "Users",
]


class Resources:
    """All resources of the API, as attributes of a client."""

    # On the class, the class of each resource: a mock made from this one finds their methods.
    questions: Questions = cast("Any", Questions)
    interviews: Interviews = cast("Any", Interviews)
    candidates: Candidates = cast("Any", Candidates)
    candidate_interviews: CandidateInterviews = cast("Any", CandidateInterviews)
    narrators: Narrators = cast("Any", Narrators)
    message_groups: MessageGroups = cast("Any", MessageGroups)
    teams: Teams = cast("Any", Teams)
    users: Users = cast("Any", Users)

    def _build(
        self,
        session: Session,
        waits: Waits,
        *,
        phone_policy: PhonePolicy,
        default_region: str | None,
        user_id: str | None,
    ) -> None:
        """Build the resources upon one session; views of a client share the waits."""
        links = endpoint.candidate_interviews_endpoint(session)
        people = endpoint.candidates_endpoint(session)
        self.questions = Questions(endpoint.questions_endpoint(session), waits, user_id)
        self.interviews = Interviews(endpoint.interviews_endpoint(session))
        self.candidates = Candidates(people, phone_policy, default_region)
        self.candidate_interviews = CandidateInterviews(links, waits)
        self.narrators = Narrators(endpoint.narrators_endpoint(session))
        self.message_groups = MessageGroups(endpoint.message_groups_endpoint(session))
        self.teams = Teams(endpoint.teams_endpoint(session))
        self.users = Users(endpoint.users_endpoint(session), phone_policy, default_region)
