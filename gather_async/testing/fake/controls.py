"""Methods of `FakeGather` that control what happens: scenarios and faults."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import cast

from gather_async.errors import ConfigurationError
from gather_async.testing.fake.candidates import add_candidate, complete
from gather_async.testing.fake.faults import Fault, FaultKind, shares_of
from gather_async.testing.fake.questions import end_audio, listen_for_audio
from gather_async.testing.fake.server import RequestHandler
from gather_async.testing.fake.state import Row, ServerState, Table
from gather_async.testing.fake.webhooks import Webhooks, WebhookTarget
from gather_async.validators import Number
from gather_async.webhooks.events import EVENT_CLASSES

__all__ = ["FaultMethods", "ScenarioMethods"]

_SECONDS = Number(least=0, most=math.inf, unit="seconds")


class ScenarioMethods:
    """Events at the server that no request of the client causes."""

    _world: ServerState
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
        """Let a question's audio generation fail. No event announces it.

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
        events: Collection[str] = tuple(EVENT_CLASSES),
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
        unknown = set(events) - EVENT_CLASSES.keys()
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


class FaultMethods:
    """Faults on demand. Each counts as a request and uses quota.

    ``times`` may be ``math.inf``. ``path`` is a whole path without the query, and
    may hold ``*``: ``/qsi/gather/questions/*``; None is any path. Faults are met
    in the order in which they were asked for.
    """

    _handler: RequestHandler

    def fail_next(
        self,
        status: int = 500,
        *,
        times: float = 1,
        path: str | None = None,
        method: str | None = None,
        after_processing: bool = False,
        commit_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        """Answer the next requests with an error envelope.

        Args:
            status: 300 to 599.
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.
            after_processing: Whether the request is carried out nonetheless.
            commit_after: Seconds after the answer at which it is carried out nonetheless,
                as behind a gateway that gives up early; None: by ``after_processing``.
            headers: Sent along, such as ``{"Retry-After": "2"}``.
            code: The error code; None takes the documented one.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        Number(least=300, most=599, whole=True).check("status", status)
        fault = Fault(
            kind=FaultKind.STATUS,
            status=status,
            after_processing=after_processing and commit_after is None,
            commit_after=_commit_after(commit_after),
            headers=headers or {},
            code=code,
        )
        self._handler.faults.add(fault, times=times, path=path, method=method)

    def drop_next(
        self,
        *,
        after_processing: bool = True,
        commit_after: float | None = None,
        times: float = 1,
        path: str | None = None,
        method: str | None = None,
    ) -> None:
        """Cut the connection of the next requests instead of answering.

        aiohttp's client sends a GET whose connection was cut once more by itself, so a
        lost answer to a read takes ``times=2`` to be noticed.

        Args:
            after_processing: True: the request is carried out and its answer is
                lost; False: nothing is carried out.
            commit_after: Seconds after the cut at which it is carried out nonetheless; None:
                by ``after_processing``.
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        fault = Fault(
            kind=FaultKind.CUT,
            after_processing=after_processing and commit_after is None,
            commit_after=_commit_after(commit_after),
        )
        self._handler.faults.add(fault, times=times, path=path, method=method)

    def slow_next(
        self,
        seconds: float,
        *,
        after_processing: bool = True,
        times: float = 1,
        path: str | None = None,
        method: str | None = None,
    ) -> None:
        """Answer the next requests rightly, but late.

        Args:
            seconds: How late, on the server's clock, from 0; ``math.inf``: never.
            after_processing: True: carried out at once and answered late; False:
                carried out late.
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        _SECONDS.check("seconds", seconds)
        fault = Fault(kind=FaultKind.SLOW, seconds=seconds, after_processing=after_processing)
        self._handler.faults.add(fault, times=times, path=path, method=method)

    def truncate_next(
        self, *, times: float = 1, path: str | None = None, method: str | None = None
    ) -> None:
        """Carry the next requests out, send half of each answer's body, then cut.

        Args:
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        fault = Fault(kind=FaultKind.TRUNCATE)
        self._handler.faults.add(fault, times=times, path=path, method=method)

    def html_next(
        self,
        status: int = 503,
        *,
        after_processing: bool = False,
        times: float = 1,
        path: str | None = None,
        method: str | None = None,
    ) -> None:
        """Answer the next requests with a proxy's HTML page.

        Args:
            status: 200 to 599.
            after_processing: Whether the request is carried out nonetheless.
            times: How many requests.
            path: Only requests of this path.
            method: Only requests of this method.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        Number(least=200, most=599, whole=True).check("status", status)
        fault = Fault(kind=FaultKind.HTML, status=status, after_processing=after_processing)
        self._handler.faults.add(fault, times=times, path=path, method=method)

    def chaos(
        self,
        *,
        errors_500: float = 0.0,
        errors_500_after: float = 0.0,
        html_503: float = 0.0,
        cut_before: float = 0.0,
        cut_after: float = 0.0,
        truncated: float = 0.0,
    ) -> None:
        """Let each request go wrong by chance, repeatable by ``seed``; no argument ends it.

        Args:
            errors_500: Share answered 500 and not carried out, 0 to 1.
            errors_500_after: Share carried out and answered 500.
            html_503: Share answered with a proxy's page and not carried out.
            cut_before: Share cut and not carried out.
            cut_after: Share carried out and cut.
            truncated: Share carried out and answered by half.

        Raises:
            ConfigurationError: A share is negative, or they exceed 1 in sum.
        """
        self._handler.faults.mix(
            shares_of(
                errors_500=errors_500,
                errors_500_after=errors_500_after,
                html_503=html_503,
                cut_before=cut_before,
                cut_after=cut_after,
                truncated=truncated,
            )
        )

    def set_latency(self, low: float, high: float) -> None:
        """Let every exchange take a random time, seeded; the quota counts somewhere within.

        Args:
            low: Seconds on the server's clock, from 0.
            high: Seconds, at least ``low``; 0 ends it.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        _SECONDS.check("low", low)
        Number(least=low, unit="seconds").check("high", high)
        self._handler.latency = (low, high)

    def set_list_lag(self, seconds: float) -> None:
        """Let lists show a new object only some time after it was created; reads show it at once.

        Args:
            seconds: On the server's clock, from 0; 0 ends it.

        Raises:
            ConfigurationError: A value is out of its range.
        """
        self._handler.world.list_lag = _SECONDS.check("seconds", seconds)

    def clear_faults(self) -> None:
        """Forget all faults that were asked for, the mix, the latency and the lag included."""
        self._handler.faults.clear()
        self._handler.latency = (0.0, 0.0)
        self._handler.world.list_lag = 0.0


def _commit_after(seconds: float | None) -> float | None:
    return None if seconds is None else cast("float", _SECONDS.check("commit_after", seconds))
