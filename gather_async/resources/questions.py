"""Audio questions. Source: /api-reference/questions."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from attrs import define, field

from gather_async.errors import AudioGenerationError, BadRequestError
from gather_async.models.question import Question
from gather_async.pager import Pager
from gather_async.protocol.polling import PollPolicy
from gather_async.protocol.requests import QueryValue, with_extra
from gather_async.resources.resource import Resource
from gather_async.transport import Timeout
from gather_async.unset import UNSET, Unset
from gather_async.waiting import Waits

__all__ = ["Questions"]

_USER_ID_ADVICE = (
    "Pass user_id to create, or to GatherClient for all questions, or set GATHER_USER_ID: "
    "the id of a user of the key's team, such as one that `users.list` gives."
)


@define(eq=False, slots=False)
class Questions(Resource[Question]):
    """Create and read questions, and wait for their audio."""

    _waits: Waits = field(repr=False)
    _default_user_id: str | None = field(default=None)

    async def create(
        self,
        *,
        title: str | None = None,
        question_script: str | None = None,
        user_id: str | Unset | None = UNSET,
        audio_url: str | None = None,
        description: str | None = None,
        narrator_id: str | None = None,
        generate_audio: bool | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: Timeout | Unset = UNSET,
        idempotent: bool = False,
    ) -> Question:
        """Create an audio question. Costs one request.

        Audio generation ends later: see `wait_until_audio_ready`. A question can't
        be looked up, so a lost response raises with ``maybe_processed=True``.

        Args:
            title: What the dashboard shows.
            question_script: What the narrator says.
            user_id: Who counts as the creator. UNSET takes the client's ``user_id``,
                None sends none. Edition A of the documentation requires one.
            audio_url: A recording of the question.
            description: Notes.
            narrator_id: Who speaks; None: the organization's default narrator.
            generate_audio: Ask for text-to-speech. Source: /api-reference/narrators.
            extra: Undocumented fields, merged into the body as they are.
            timeout: Seconds for each attempt; UNSET takes the client's.
            idempotent: Your word that creating it twice does no harm, so that a
                lost response is tried again.

        Returns:
            The question as the server has it; its audio is most likely not ready yet.

        Raises:
            BadRequestError: The server refused a field; ``user_id`` may be required.
            GatherConnectionError: The connection failed; see ``maybe_processed``.
            GatherTimeoutError: A deadline passed; see ``maybe_processed``.
            GatherAPIError: The server answered with another error.
            ResponseDecodeError: The response makes no sense.
            QuotaWaitError: The quota has no room within ``max_wait``.
        """
        body = {
            "userId": self._default_user_id if user_id is UNSET else user_id,
            "title": title,
            "questionScript": question_script,
            "audioURL": audio_url,
            "description": description,
            "narratorId": narrator_id,
            "generateAudio": generate_audio,
        }
        try:
            return await self._endpoint.create(
                with_extra(body, extra), timeout=timeout, idempotent=idempotent
            )
        except BadRequestError as error:
            if body["userId"] is None and "userid" in f"{error.message} {error.details}".lower():
                error.add_note(_USER_ID_ADVICE)
            raise

    def list(self, *, timeout: Timeout | Unset = UNSET, **filters: QueryValue) -> Pager[Question]:
        """List questions.

        The list's parameters are undocumented: the server may ignore ``page``, and
        then the first page is all there is.

        Args:
            timeout: Seconds for each attempt; UNSET takes the client's.
            **filters: Query parameters in the server's spelling, each one value; those that
                are None are not sent.

        Raises:
            InvalidRequestError: A filter is no single value.
        """
        return self._endpoint.list(filters, timeout=timeout)

    async def wait_until_audio_ready(
        self,
        question: Question | str,
        *,
        timeout: float | None = 300.0,
        poll: PollPolicy | None = None,
    ) -> Question:
        """Return the question once its audio generation has succeeded.

        All waits of a client share their polls, which go with bulk priority, and a
        webhook wakes them if the client has ``signals``. Cancelling one wait
        disturbs no other.

        Args:
            question: The question or its id.
            timeout: Seconds to wait at most; None waits as long as it takes.
            poll: When to poll, and which words mean what; None takes the default.

        Raises:
            AudioGenerationError: The server says that generation failed.
            AudioTimeoutError: It was not over in time; has the question as last read.
            AuthenticationError: The API key is not accepted.
            NotFoundError: There is no such question.
            ClientClosedError: The client was closed meanwhile.
        """
        return await self._waits.audio.wait(question, timeout=timeout, poll=poll)

    def wait_until_all_audio_ready(
        self,
        questions: Iterable[Question | str],
        *,
        timeout: float | None = 300.0,
        poll: PollPolicy | None = None,
    ) -> AsyncIterator[Question | AudioGenerationError]:
        """Give each question as its audio generation ends, in the order they end.

        A failed generation is given as the error, not raised, so that one failure
        doesn't end the rest.

        Args:
            questions: Questions or ids; each is waited for once.
            timeout: Seconds for all of them together; None: as long as it takes.
            poll: When to poll, and which words mean what; None takes the default.

        Raises:
            AudioTimeoutError: Some were not over in time.
            AuthenticationError: The API key is not accepted.
            NotFoundError: One of them doesn't exist.
            ClientClosedError: The client was closed meanwhile.
        """
        return self._waits.audio.wait_each(questions, timeout=timeout, poll=poll)
