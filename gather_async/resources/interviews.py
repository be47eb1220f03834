"""Interviews. Source: /api-reference/interviews, /api-reference/interviews-bulk-update."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from attrs import define

from gather_async.errors import InvalidRequestError
from gather_async.models.enums import InterviewStatus, InterviewType
from gather_async.models.interview import BulkUpdateResult, Interview
from gather_async.pager import Pager
from gather_async.protocol.requests import Request, path_to, with_extra
from gather_async.protocol.responses import decode_item
from gather_async.resources.resource import Resource
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset

__all__ = ["Interviews"]


@define(eq=False, slots=False)
class Interviews(Resource[Interview]):
    """Create, read and change interviews."""

    async def create(
        self,
        *,
        title: str | None = None,
        display_name: str | None = None,
        interview_type: InterviewType | str = "standard",
        question_ids: Sequence[str] | None = None,
        description: str | None = None,
        language: str | None = None,
        survey_questions: Sequence[Mapping[str, Any]] | None = None,
        keywords: Sequence[str] | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> Interview:
        """Create an interview. Costs one request.

        An interview can't be looked up, so a lost response raises with
        ``maybe_processed=True``.

        Args:
            title: What the dashboard shows.
            display_name: What candidates see.
            interview_type: ``standard``; edition A of the documentation also
                creates ``questionnaire``.
            question_ids: The questions' ids, in order.
            description: Notes.
            language: Such as ``en``.
            survey_questions: Objects ``{"id": ..., "knockout": bool}`` (edition B).
            keywords: Words to listen for (edition B).
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that creating it twice does no harm, so that a
                lost response is tried again.

        Raises:
            InvalidRequestError: ``question_ids`` or ``keywords`` is one text.
            BadRequestError: The server refused a field.
            GatherConnectionError: The connection failed; see ``maybe_processed``.
            GatherTimeoutError: A deadline passed; see ``maybe_processed``.
            GatherAPIError: The server answered with another error.
            ResponseDecodeError: The response makes no sense.
            QuotaWaitError: The quota has no room within ``max_wait``.
        """
        body = {
            "title": title,
            "displayName": display_name,
            "interviewType": interview_type,
            "description": description,
            "language": language,
            "questionIds": _listed("question_ids", question_ids),
            "surveyQuestions": _listed("survey_questions", survey_questions),
            "keywords": _listed("keywords", keywords),
        }
        return await self._endpoint.create(
            with_extra(body, extra), timeout=timeout, idempotent=idempotent
        )

    async def get(
        self,
        id: str,
        *,
        team_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> Interview:
        """Read one interview with its questions. Costs one request.

        Args:
            id: The interview's id.
            team_id: Overrides the key's team for this call (edition B).
            extra: Undocumented query parameters, as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.

        Raises:
            InvalidRequestError: The id is empty or could change the path.
            NotFoundError: There is no such interview.
            GatherError: As for `create`.
        """
        query = with_extra({"teamId": team_id}, extra)
        return await super().get(id, extra=query, timeout=timeout)

    def list(
        self,
        *,
        archived: bool | None = None,
        interview_type: InterviewType | str | None = None,
        status: InterviewStatus | str | None = None,
        timeout: Timeout | Unset = UNSET,
    ) -> Pager[Interview]:
        """List interviews, 100 a page.

        Args:
            archived: Whether archived ones are listed too; the server's default is False.
            interview_type: Only this type.
            status: Only this status, sent as given (edition A).
            timeout: Seconds for each attempt; UNSET takes the client's.
        """
        query = {"archived": archived, "interviewType": interview_type, "status": status}
        return self._endpoint.list(query, timeout=timeout)

    async def bulk_update(
        self,
        interview_ids: Sequence[str],
        *,
        mode: Literal["overwrite", "merge"] | None = None,
        title: str | None = None,
        display_name: str | None = None,
        keywords: Sequence[str] | None = None,
        removed_keywords: Sequence[str] | None = None,
        removed_question_ids: Sequence[str] | None = None,
        removed_survey_question_ids: Sequence[str] | None = None,
        removed_ai_text_question_ids: Sequence[str] | None = None,
        template_interview_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> BulkUpdateResult:
        """Change several interviews. Costs one request; all ids go in one.

        The server may answer 200 to a partial failure: look at ``is_complete``.

        Args:
            interview_ids: Which ones, at least one.
            mode: ``overwrite`` replaces values, ``merge`` adds to them.
            title: New title.
            display_name: New display name.
            keywords: New or added keywords.
            removed_keywords: Keywords to take away (merge).
            removed_question_ids: Questions to take away.
            removed_survey_question_ids: Survey questions to take away.
            removed_ai_text_question_ids: AI text questions to take away.
            template_interview_id: Copy this interview's configuration (overwrite).
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that doing it twice does no harm, so that a lost
                response is tried again.

        Raises:
            InvalidRequestError: There is no id, or a list is one text.
            GatherError: As for `create`.
        """
        if not interview_ids:
            raise InvalidRequestError("bulk_update needs at least one interview id.")
        body = {
            "interviewIds": _listed("interview_ids", interview_ids),
            "mode": mode,
            "title": title,
            "displayName": display_name,
            "keywords": _listed("keywords", keywords),
            "removedKeywords": _listed("removed_keywords", removed_keywords),
            "removedQuestionIds": _listed("removed_question_ids", removed_question_ids),
            "removedSurveyQuestionIds": _listed(
                "removed_survey_question_ids", removed_survey_question_ids
            ),
            "removedAITextQuestionIds": _listed(
                "removed_ai_text_question_ids", removed_ai_text_question_ids
            ),
            "templateInterviewId": template_interview_id,
        }
        request = Request(
            method="PATCH",
            path=path_to("interviews", "bulk-update"),
            body=with_extra(body, extra),
        )
        return await self._endpoint.session.send(
            request,
            decode=lambda payload: decode_item(payload, "result", BulkUpdateResult, is_write=True),
            timeout=timeout,
            idempotent=idempotent,
        )


def _listed(name: str, values: Sequence[Any] | None) -> "list[Any] | None":
    """Return a JSON array. One text is refused: it would be sent letter by letter."""
    if isinstance(values, str) or not (values is None or isinstance(values, Iterable)):
        raise InvalidRequestError(f"{name} must be a list, not one value.")
    return None if values is None else [*values]
