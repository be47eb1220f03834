"""What a user calls: one class for each resource of the API."""

from gather_async.pager import Page, Pager
from gather_async.resources.candidate_interviews import CandidateInterviews
from gather_async.resources.candidates import Candidates
from gather_async.resources.interviews import Interviews
from gather_async.resources.message_groups import MessageGroups
from gather_async.resources.narrators import Narrators
from gather_async.resources.questions import Questions
from gather_async.resources.resource import Resource
from gather_async.resources.teams import Teams
from gather_async.resources.users import Users

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
    "Teams",
    "Users",
]
