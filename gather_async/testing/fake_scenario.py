"""The part of `FakeGather` that lets things happen: audio, candidates, webhooks."""

from collections.abc import Collection, Sequence

from gather_async.errors import ConfigurationError
from gather_async.testing.fake.candidates import add_candidate
from gather_async.testing.fake.state import Row, Table, World
from gather_async.testing.fake.webhooks import EVENTS, Webhooks, WebhookTarget
from gather_async.testing.fake_audio import end_audio, listen_for_audio
from gather_async.testing.fake_candidate_interviews import complete

__all__ = ["ScenarioMethods"]


class ScenarioMethods:
    """What happens at the server without a request of the client."""

    _world: World
    _webhooks: Webhooks

    def finish_audio(self, question_id: str, *, after: float = 0.0) -> None:
        """Let a question's audio be ready.

        Args:
            question_id: Which question.
            after: Seconds from now on the server's clock.

        Raises:
            KeyError: There is no such question.
        """
        end_audio(self._world, _known(self._world.questions, question_id), fails=False, after=after)

    def fail_audio(self, question_id: str, *, after: float = 0.0) -> None:
        """Let a question's audio generation fail. No event tells of it.

        Args:
            question_id: Which question.
            after: Seconds from now on the server's clock.

        Raises:
            KeyError: There is no such question.
        """
        end_audio(self._world, _known(self._world.questions, question_id), fails=True, after=after)

    def complete_interview(
        self, candidate_interview_id: str, *, summary_fails: bool = False
    ) -> None:
        """Let the candidate finish: ``new_response``, two events, then the summary.

        ``summaryStatus`` is ``processing`` for ``summary_seconds`` and then
        ``complete``, or ``error`` with ``summary_fails``.

        Raises:
            KeyError: There is no such candidate interview.
        """
        link = _known(self._world.candidate_interviews, candidate_interview_id)
        complete(self._world, link, summary_fails=summary_fails)

    def add_candidates(
        self, count: int, *, external_ids: bool = True, sms_opt_in: bool = True
    ) -> Sequence[str]:
        """Make candidates without requests; 10 000 take a fraction of a second.

        Args:
            count: How many.
            external_ids: Whether they have ``externalId``: ``person-0``, ``person-1``, ...
            sms_opt_in: Whether they agreed to text messages.

        Returns:
            Their ids.
        """
        first = len(self._world.candidates.order)
        made = (
            add_candidate(
                self._world,
                {
                    "firstName": "Person",
                    "lastName": str(number),
                    "email": f"person-{number}@example.com",
                    "phone": f"+120255501{number % 100:02d}",  # kept free for fiction
                    "externalId": f"person-{number}" if external_ids else None,
                    "smsOptIn": sms_opt_in,
                },
            )
            for number in range(first, first + count)
        )
        return [candidate["id"] for candidate in made]

    def archive(self, id: str) -> None:
        """Archive a candidate or an interview, which no documented operation does.

        Raises:
            KeyError: There is neither with this id.
        """
        candidate = self._world.candidates.get(id)
        if candidate is not None:
            self._world.candidates.hide(candidate)
            return
        interview = _known(self._world.interviews, id)
        interview["_status"] = 3
        self._world.interviews.hide(interview)

    def send_webhook_to(
        self,
        url: str,
        secret: str,
        *,
        events: Collection[str] = EVENTS,
        fresh_signatures: bool = True,
    ) -> WebhookTarget:
        """Deliver the events that happen from now on, signed, with up to three attempts.

        An attempt that isn't answered 2xx within 5 s is repeated after 1 minute, and
        again after 5 more, on the server's clock. Awaiting the call is allowed and
        changes nothing.

        Args:
            url: Where to; redirects are not followed.
            secret: What to sign with.
            events: Only these.
            fresh_signatures: Whether each attempt is signed with a new timestamp.

        Returns:
            The target: its ``deliveries`` and ``await target.wait_until_settled()``.

        Raises:
            ConfigurationError: The secret is empty, or an event is not documented.
        """
        unknown = set(events) - set(EVENTS)
        if unknown or not secret:
            raise ConfigurationError(
                f"No such event: {sorted(unknown)}." if unknown else "The secret must not be empty."
            )
        target = WebhookTarget(url, frozenset(events), secret, fresh_signatures)
        self._webhooks.add(target)
        listen_for_audio(self._world)
        return target


def _known(table: Table, id: str) -> Row:
    """Return an object, or say that there is none."""
    row = table.get(id)
    if row is None:
        raise KeyError(f"FakeGather has no object {id!r} of this kind.")
    return row
