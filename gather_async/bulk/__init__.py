"""Invites at scale: each person once, never twice, as fast as the quota allows."""

from gather_async.bulk.candidate_file import (
    CandidateFile,
    FileDescription,
    read_candidates,
)
from gather_async.bulk.execution import JobLease
from gather_async.bulk.existing import LookupStrategy
from gather_async.bulk.job import BulkInvite
from gather_async.bulk.report import (
    InvitePlan,
    InviteProgress,
    InviteReport,
    Outcomes,
    StopReason,
)
from gather_async.bulk.row_check import UnreadableRow
from gather_async.bulk.row_state import InviteOutcome, InviteStatus
from gather_async.bulk.source import CandidateSource as BulkCandidates

__all__ = [
    "BulkCandidates",
    "BulkInvite",
    "CandidateFile",
    "FileDescription",
    "InviteOutcome",
    "InvitePlan",
    "InviteProgress",
    "InviteReport",
    "InviteStatus",
    "JobLease",
    "LookupStrategy",
    "Outcomes",
    "StopReason",
    "UnreadableRow",
    "read_candidates",
]
