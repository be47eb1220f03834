"""The contract of an inbox: where events wait from the answer 200 until they are handled."""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum, StrEnum
from hashlib import sha256
from typing import Any, Protocol

from attrs import field, frozen

from gather_async.errors import ConfigurationError
from gather_async.webhooks.events import (
    CandidateInterviewCompleted,
    CandidateInterviewStatusChanged,
    WebhookEvent,
    decode_event,
)

__all__ = [
    "ClaimReport",
    "ClaimResult",
    "ClaimedEvent",
    "DeadLetter",
    "EventState",
    "HandlerFailure",
    "Inbox",
    "InboxEntry",
    "Published",
    "PutResult",
    "StoredEvent",
    "validate_inbox",
]


class PutResult(Enum):
    """The result of putting an event into an inbox."""

    NEW = "new"
    DUPLICATE = "duplicate"
    FULL = "full"


class EventState(StrEnum):
    """The state of a stored event."""

    WAITING = "waiting"
    """Due now or later, or claimed."""
    DONE = "done"
    """Every handler that wanted it succeeded."""
    IGNORED = "ignored"
    """No handler wanted it when it was claimed; it may be replayed."""
    DEAD = "dead"
    """A handler failed for good; it is kept until it is replayed or discarded."""


@frozen(kw_only=True)
class StoredEvent:
    """An event as an inbox stores it. Its ``repr`` shows no data."""

    key: str
    """What names it in the inbox: receiver and ``dedupe_key``, printable ASCII."""
    aliases: Collection[str] = field(default=(), eq=False)
    """Other keys under which the same event may be stored already."""
    name: str
    """The event's name on the wire."""
    text: str = field(repr=False)
    """The JSON text that was verified."""
    received_at: float
    """Unix seconds of the process that received it; for people, never compared."""
    receiver: str = ""
    """The name of the `WebhookReceiver` whose handlers get it; empty: any receiver's."""
    tenant: str | None = None
    """Whose secret it was signed with, if the receiver has tenants."""
    subjects: Sequence[str] = field(default=(), eq=False)
    """What the event is about, as hashes, its own first and its aliases after it: a synthetic
    event and a real one of one subject and ``state`` are one event, though their keys differ.
    Empty: no other event can be the same."""
    state: str = field(default="", eq=False)
    """The state of the subject after the event, as a hash."""
    synthetic: bool = False
    signed: bool = True
    default_event: str | None = None
    """The event's name, if the text doesn't say it."""

    @classmethod
    def of(
        cls,
        event: WebhookEvent,
        text: str,
        *,
        received_at: float,
        receivers: Sequence[str] = ("",),
        default_event: str | None = None,
    ) -> "StoredEvent":
        """Return an event as inboxes store it.

        Args:
            event: The event.
            text: The JSON text that it was decoded from.
            received_at: Unix seconds.
            receivers: The receiver's name, then those under which it stored events before.
            default_event: The event's name, if the text doesn't say it.
        """
        key, *aliases = (_scoped(name, event.dedupe_key) for name in receivers)
        subject, state = _subject_of(event)
        return cls(
            key=key,
            aliases=tuple(aliases),
            # A lone surrogate, which JSON can spell, is text that no database takes.
            name=event.event.encode("utf-8", "backslashreplace").decode(),
            text=text,
            received_at=received_at,
            receiver=receivers[0],
            tenant=event.tenant,
            subjects=() if subject is None else tuple(_scoped(n, subject) for n in receivers),
            state=state,
            synthetic=event.synthetic,
            signed=event.signed,
            default_event=default_event,
        )

    def decode(self) -> WebhookEvent:
        """Return the event.

        Raises:
            WebhookVerificationError: The text is no event.
        """
        return decode_event(
            self.text,
            synthetic=self.synthetic,
            signed=self.signed,
            default_event=self.default_event,
            tenant=self.tenant,
        )


@frozen(kw_only=True)
class HandlerFailure:
    """The failed runs of one handler on one event."""

    failures: int
    """How many there were, in all."""
    error: str = field(default="", repr=False)
    """The last failure with its traceback; may hold personal data."""
    retry_in: float = 0.0
    """Seconds until the handler is due again; 0 or less: now."""


@frozen(kw_only=True)
class ClaimedEvent:
    """An event that this process holds, with what is recorded of its handlers."""

    event: StoredEvent
    ended: frozenset[str] = frozenset()
    """Handlers that must not get it again: they succeeded, or failed for good."""
    failures: Mapping[str, HandlerFailure] = field(factory=dict)
    """Handlers that failed and are to be run again."""
    crashes: int = 0
    """Earlier claims without a report: the process died, or lost its lease."""
    token: str = field(repr=False)
    """Proves the claim: a report with an older one is ignored."""

    def retry_in(self, handler: str) -> float:
        """Return the seconds until a handler is due; 0 if it is due now."""
        failure = self.failures.get(handler)
        return 0.0 if failure is None else max(failure.retry_in, 0.0)


@frozen(kw_only=True)
class ClaimResult:
    """The events of a claim."""

    events: Sequence[ClaimedEvent]
    next_due_in: float | None
    """Seconds until another event of these handlers is due; None: there is none."""
    handlers: Mapping[str, frozenset[str]]
    """All announced handlers of the receiver, and the events that each wants."""


@frozen(kw_only=True)
class ClaimReport:
    """The end of a claim: what the handlers did, and when the event is due again."""

    claimed: ClaimedEvent
    done: Collection[str] = ()
    """Handlers that succeeded."""
    failed: Mapping[str, HandlerFailure] = field(factory=dict)
    """Handlers that failed and are to be run again."""
    dead: Mapping[str, HandlerFailure] = field(factory=dict)
    """Handlers that failed for good."""
    due_in: float | None = None
    """Seconds until the event is due again; None: it is over."""
    waits_for: str = ""
    """The one handler that may claim it then; empty: any."""
    is_ignored: bool = False
    """Whether it is over because no handler wanted it."""


@frozen(kw_only=True)
class DeadLetter:
    """One event that one handler failed on for good. Its ``repr`` shows no data."""

    event: WebhookEvent
    handler: str
    """The handler's stable name."""
    key: str
    """The stored event's key; with ``handler`` it names the letter."""
    receiver: str = ""
    """The name of the receiver whose handler it was."""
    failures: int
    dead_at: float
    """Unix seconds, by the inbox's clock."""
    error: str = field(repr=False)
    """The last failure with its traceback; may hold personal data."""


@frozen(kw_only=True)
class InboxEntry:
    """A stored event with its state, for tools."""

    event: StoredEvent
    state: EventState


@frozen(kw_only=True)
class Published:
    """Events in the order in which they were put, and the position after them."""

    position: int
    events: Sequence[StoredEvent] = ()


class Inbox(Protocol):
    """Store of waiting events: `MemoryInbox`, `SQLiteInbox`, `PostgresInbox` and `RedisInbox`.

    Times are durations in seconds, measured by one clock, that of the storage, so that no
    clocks of two machines are compared. A claimed event is invisible until its lease ends; a
    process that goes on working renews it. A handler whose completion was recorded never
    gets the event again. Every method may be cancelled at any await, which leaves
    open whether its change was made, and may raise any exception if the storage fails.
    `gather_async.testing.inbox_laws` checks all of it.
    """

    @property
    def is_shared(self) -> bool:
        """Whether it outlives the process, and other processes may use it, too."""
        ...

    async def open(self) -> None:
        """Open the storage now.

        Raises:
            ConfigurationError: It can't be opened; the message says where it is.
        """

    async def put(self, event: StoredEvent) -> PutResult:
        """Store an event, durably, unless it is there already.

        It is there if its key or an alias is, or if the latest event of one of its
        ``subjects`` has the same ``state`` and one of the two is synthetic.
        """
        ...

    async def contains(self, event: StoredEvent) -> bool:
        """Return whether `put` would call it a duplicate."""
        ...

    async def announce(
        self,
        receiver: str,
        handlers: Mapping[str, Collection[str]],
        *,
        former: Collection[str] = (),
        keep_for: float,
    ) -> None:
        """Record for some seconds which handlers exist, and which events each wants.

        With a handler that was not recorded, all waiting events of the receiver wait for any
        handler again. Waiting events of ``former`` receivers become this one's.

        Args:
            receiver: The receiver's name.
            handlers: By name the events that each wants: their names, ``"*"`` for all,
                ``"?"`` for those that are not documented.
            former: Other names of receivers whose waiting events are this one's.
            keep_for: Seconds for which events wait for these handlers if no process
                announces them again.
        """

    async def claim(
        self, receiver: str, handlers: Collection[str], *, limit: int, lease: float
    ) -> ClaimResult:
        """Claim due events of a receiver, oldest first, for some seconds.

        Args:
            receiver: The receiver's name.
            handlers: Claims events that wait for any handler, or for one of these.
            limit: Events at most.
            lease: Seconds until others may claim them, an hour at most; infinite only in an
                inbox that isn't shared.
        """
        ...

    async def renew(self, claims: Collection[ClaimedEvent], *, lease: float) -> Collection[str]:
        """Make leases last for so many seconds from now; return the keys still held."""
        ...

    async def complete(self, claimed: ClaimedEvent, handler: str) -> None:
        """Record that a handler succeeded, even if another process holds the event now."""

    async def report(self, reports: Collection[ClaimReport]) -> None:
        """End claims. Of a claim that is no longer held only the completions are recorded."""

    async def list(
        self,
        *,
        state: EventState | None = None,
        event: str | None = None,
        tenant: str | None = None,
        limit: int = 100,
    ) -> Sequence[InboxEntry]:
        """Return stored events, oldest first."""
        ...

    async def dead_letters(
        self, *, receiver: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the dead letters, oldest first; None: of all receivers."""
        ...

    async def replay(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Make events that are over due again, without failures; return how many.

        Args:
            keys: The events' keys; unknown ones, and events that wait, are passed over.
            handlers: These get it again, even if they succeeded; None: all but those that
                succeeded.
        """
        ...

    async def discard(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Give events up as if they were done; return how many.

        Args:
            keys: The events' keys; unknown ones, and events that are done, are passed over.
            handlers: Give up only the dead letters of these; None: the events as a whole.
        """
        ...

    async def counts(self) -> Mapping[EventState, int]:
        """Return how many events are in each state; states without any may be absent."""
        ...

    async def published(self, after: int | None, *, limit: int = 100) -> Published:
        """Return the events put after a position, by any process; None: the position alone."""
        ...

    async def prune(self, *, older_than: float | None = None) -> int:
        """Forget events that were done or ignored so many seconds ago, and expired handlers.

        None: as long as the inbox is set to keep them. Returns how many events.
        """
        ...

    async def aclose(self) -> None:
        """Close what is open; the next use opens it again. Harmless to repeat."""


def validate_inbox(inbox: Any) -> None:
    """Raise `ConfigurationError` for what is no inbox, such as a path or a class."""
    if isinstance(inbox, type) or not callable(getattr(inbox, "claim", None)):
        kind = f"the class {inbox.__name__}" if isinstance(inbox, type) else type(inbox).__name__
        raise ConfigurationError(f"inbox must be an inbox, as SQLiteInbox(path) is, not {kind}.")


def _scoped(receiver: str, name: str) -> str:
    return f"{receiver}/{name}" if receiver else name


def _subject_of(event: WebhookEvent) -> tuple[str | None, str]:
    """Return subject and state: completion happens once, a status changes."""
    about = () if event.tenant is None else (event.tenant,)
    if isinstance(event, CandidateInterviewCompleted) and event.candidate_interview_id:
        return _hash(event.event, event.candidate_interview_id, *about), ""
    if isinstance(event, CandidateInterviewStatusChanged) and event.candidate_interview_id:
        return _hash(event.event, event.candidate_interview_id, *about), _hash(str(event.status))
    return None, ""


def _hash(*parts: str) -> str:
    text = "\n".join(parts)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
