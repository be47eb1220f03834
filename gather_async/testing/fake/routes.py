"""Operation of a method and a path. The internal credentials operations are left out."""

from collections.abc import Callable
from urllib.parse import unquote

from gather_async.testing.fake.candidates import (
    create_candidate,
    create_candidate_interview,
    get_candidate,
    get_candidate_interview,
    get_results,
    list_candidate_interviews,
    list_candidates,
    resend_invite,
    update_status,
)
from gather_async.testing.fake.interviews import (
    bulk_update_interviews,
    create_interview,
    get_interview,
    list_interviews,
)
from gather_async.testing.fake.messages import FakeRequest, Reply, no_such_path
from gather_async.testing.fake.organization import (
    create_teams,
    create_users,
    get_message_group,
    get_narrator,
    list_message_groups,
    list_narrators,
    list_teams,
    list_users,
)
from gather_async.testing.fake.questions import create_question, get_question, list_questions

__all__ = ["Operation", "PREFIX", "route"]

Operation = Callable[[FakeRequest], Reply]

PREFIX = "/qsi/gather/"
_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "questions"): create_question,
    ("GET", "questions"): list_questions,
    ("GET", "questions/*"): get_question,
    ("POST", "interviews"): create_interview,
    ("GET", "interviews"): list_interviews,
    ("GET", "interviews/*"): get_interview,
    ("POST", "candidates"): create_candidate,
    ("GET", "candidates"): list_candidates,
    ("GET", "candidates/*"): get_candidate,
    ("POST", "candidate-interviews"): create_candidate_interview,
    ("GET", "candidate-interviews"): list_candidate_interviews,
    ("GET", "candidate-interviews/*"): get_candidate_interview,
    ("PATCH", "candidate-interviews/*/status"): update_status,
    ("GET", "candidate-interviews/*/results"): get_results,
    ("POST", "candidate-interviews/*/resend-invite"): resend_invite,
    ("GET", "narrators"): list_narrators,
    ("GET", "narrators/*"): get_narrator,
    ("GET", "message-groups"): list_message_groups,
    ("GET", "message-groups/*"): get_message_group,
    ("POST", "teams"): create_teams,
    ("GET", "teams"): list_teams,
    ("POST", "users"): create_users,
    ("GET", "users"): list_users,
}


def route(method: str, path: str) -> tuple[Operation, str]:
    """Return the operation and the id of a raw path, or refuse it."""
    if not path.startswith(PREFIX):
        raise no_such_path(path)
    rest = path[len(PREFIX) :]
    if (method, rest) == ("PATCH", "interviews/bulk-update"):
        return bulk_update_interviews, ""
    collection, slash, tail = rest.partition("/")
    key, second_slash, action = tail.partition("/")
    shape = collection + (slash and "/*") + (second_slash and f"/{action}")
    operation = _OPERATIONS.get((method, shape))
    if operation is None or bool(slash) != bool(key):
        raise no_such_path(path)
    return operation, unquote(key)
