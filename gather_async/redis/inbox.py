"""An inbox on a Redis server, shared by processes on any machines."""

import asyncio
import json
import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final, Literal

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gather_async.errors import ClientClosedError, ConfigurationError
from gather_async.observability import log_fields
from gather_async.redis.connection import (
    Argument,
    RedisClient,
    RedisConnection,
    RedisError,
    Script,
    decoded,
    failure_word,
)
from gather_async.redis.inbox_script import (
    chosen,
    claimed_of,
    event_of,
    identity_of,
    letter_of,
    milliseconds,
    pairs,
    spec_of,
    to_bytes,
    to_text,
)
from gather_async.validators import Number, Secret, hide_arguments
from gather_async.webhooks.inbox import (
    ClaimedEvent,
    ClaimReport,
    ClaimResult,
    DeadLetter,
    EventState,
    InboxEntry,
    Published,
    PutResult,
    StoredEvent,
)

__all__ = ["RedisInbox"]

_log = logging.getLogger("gather_async.webhooks")

_SCRIPT: Final = Script(
    files("gather_async.redis").joinpath("inbox.lua").read_text(encoding="utf-8")
)
_CALL: Final = 3.0  # seconds; the sender gives up after 5. Source: /api-reference/webhooks
_FAREWELL: Final = 1.0  # seconds for which a cancellation may be held up
_CLAIMS_AT_ONCE: Final = 1000  # renewed by one call, in some milliseconds
_LETTERS_AT_ONCE: Final = 100  # dead letters read by one call, each with its text
_META: Final = (
    "key",
    "name",
    "received_at",
    "receiver",
    "tenant",
    "synthetic",
    "signed",
    "default_event",
)


class RedisInbox:
    """Events on a Redis server, shared by any number of processes and machines.

    An event is as durable as the server makes it: one without persistence loses with its
    restart what was answered with 200, which is logged as a warning, once. Set ``appendonly
    yes``, and ``maxmemory-policy noeviction``: a full server then refuses new events, so that
    the sender tries again, and lets handlers finish those that it has. The server holds
    personal data. What a process held when it died is due again when its lease ends.

    All keys begin with ``gather:{inbox:NAME}``, and so are on one server of a cluster.
    """

    is_shared: Literal[True] = True

    @hide_arguments
    def __init__(
        self,
        redis: str | bytes | Secret | RedisClient,
        *,
        name: str = "webhooks",
        keep_for: float = 7 * 86_400.0,
    ) -> None:
        """Make an inbox; nothing is opened yet.

        Args:
            redis: The server's URL, or a client of `redis.asyncio`, which is never closed here.
            name: Tells the inboxes of one server apart.
            keep_for: Seconds for which an event that is done or ignored is kept, so that its
                repetition is recognised; from 3600. Dead letters are kept until they are
                replayed or discarded.

        Raises:
            ConfigurationError: The URL can't be read, the name is empty or has braces, or
                ``keep_for`` is too short: the sender repeats for minutes.
        """
        Number(least=3600, unit="seconds").check("keep_for", keep_for)
        if not isinstance(name, str) or not name or set(name) & set("{}"):
            raise ConfigurationError("name must be text that isn't empty, without braces.")
        self._redis, self._keep_for = redis, keep_for
        self._base = f"gather:{{inbox:{name}}}"
        self._connection: RedisConnection | None = RedisConnection(redis, timeout=_CALL)
        self._place = self._connection.place
        self._is_checked = False

    async def open(self) -> None:
        """Connect now.

        Raises:
            ConfigurationError: The server can't be reached, or refuses.
        """
        try:
            await self._check_server()
            await self.renew((), lease=0.0)  # a replica, or a user of few rights, refuses
        except RedisError as error:
            raise ConfigurationError(
                f"The webhook inbox can't be opened: {self._place} failed "
                f"({failure_word(error)}). Start the server, or correct the URL: "
                "it must be one that may write."
            ) from error

    async def put(self, event: StoredEvent) -> PutResult:
        """Store an event; see `Inbox.put`."""
        meta = {name: getattr(event, name) for name in _META}
        spec = {**identity_of(event), **meta, "meta": json.dumps(meta)}
        is_new = await self._run("put", json.dumps(spec), to_bytes(event.text))
        return PutResult.NEW if is_new else PutResult.DUPLICATE

    async def contains(self, event: StoredEvent) -> bool:
        """Return whether `put` would call it a duplicate."""
        return bool(await self._run("contains", json.dumps(identity_of(event))))

    async def announce(
        self,
        receiver: str,
        handlers: Mapping[str, Collection[str]],
        *,
        former: Collection[str] = (),
        keep_for: float,
    ) -> None:
        """Record which handlers exist; see `Inbox.announce`."""
        wanted = [[name, json.dumps(sorted(events))] for name, events in handlers.items()]
        others = [name for name in former if name != receiver]
        is_over = await self._run(
            "announce",
            receiver,
            milliseconds(keep_for),
            json.dumps(wanted),
            json.dumps(others),
        )
        while not is_over:  # some thousand events at a time, so that no other call waits for long
            is_over = await self._run("drain")

    async def claim(
        self, receiver: str, handlers: Collection[str], *, limit: int, lease: float
    ) -> ClaimResult:
        """Claim due events; see `Inbox.claim`."""
        token = uuid.uuid4().hex
        spec: tuple[Argument, ...] = (receiver, limit, milliseconds(lease), token, *handlers)
        try:
            now, due_in, claims, known = await self._run("claim", *spec)
        except (asyncio.CancelledError, RedisConnectionError, RedisTimeoutError):
            # It may be carried out all the same, and its events would wait for the lease's end.
            if limit:
                await self._give_back(spec)
            raise
        return ClaimResult(
            events=[claimed_of(crashes, pairs(fields), token, now) for crashes, fields in claims],
            next_due_in=None if due_in is None else due_in / 1000,
            handlers={decoded(name): frozenset(json.loads(events)) for name, events in known},
        )

    async def renew(self, claims: Collection[ClaimedEvent], *, lease: float) -> Collection[str]:
        """Make leases last longer; see `Inbox.renew`."""
        tokens, kept = [part for each in claims for part in (each.event.key, each.token)], set()
        # Lua takes 8000 arguments at most.
        for first in range(0, len(tokens) or 1, 2 * _CLAIMS_AT_ONCE):
            part = tokens[first : first + 2 * _CLAIMS_AT_ONCE]
            kept |= set(map(decoded, await self._run("renew", milliseconds(lease), *part)))
        return kept

    async def complete(self, claimed: ClaimedEvent, handler: str) -> None:
        """Record that a handler succeeded; see `Inbox.complete`."""
        await self._run("complete", claimed.event.key, handler)

    async def report(self, reports: Collection[ClaimReport]) -> None:
        """End claims; see `Inbox.report`."""
        await self._run("report", json.dumps(list(map(spec_of, reports))))

    async def list(
        self,
        *,
        state: EventState | None = None,
        event: str | None = None,
        tenant: str | None = None,
        limit: int = 100,
    ) -> Sequence[InboxEntry]:
        """Return stored events, oldest first."""
        filters = ["" if value is None else f"={value}" for value in (event, tenant)]
        found: list[InboxEntry] = []
        after: Any = 0
        while after is not None and len(found) < limit:
            after, rows = await self._run(
                "list", state or "", decoded(after) if after else 0, limit - len(found), *filters
            )
            found += [
                InboxEntry(event=event_of(meta, text), state=EventState(decoded(each)))
                for each, meta, text in rows
            ]
        return found

    async def dead_letters(
        self, *, receiver: str | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return the dead letters, oldest first."""
        last = limit - 1 if receiver is None else -1
        key = f"{self._base}:letters"
        names: Any = await self._connect().call(lambda client: client.zrange(key, 0, last))
        found: list[DeadLetter] = []
        for first in range(0, len(names), _LETTERS_AT_ONCE):
            part = names[first : first + _LETTERS_AT_ONCE]
            rows = zip(map(to_text, part), await self._run("letters", *part), strict=True)
            # One that was replayed meanwhile has no failure any more.
            letters = [letter_of(name, *row) for name, row in rows if row[-1] is not None]
            found += [each for each in letters if receiver in (None, each.receiver)]
            if len(found) >= limit:
                break
        return found[:limit]

    async def replay(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Make events that are over due again; see `Inbox.replay`."""
        return int(await self._run("replay", *chosen(keys, handlers)))

    async def discard(
        self, keys: Collection[str], *, handlers: Collection[str] | None = None
    ) -> int:
        """Give events up; see `Inbox.discard`."""
        return int(await self._run("discard", *chosen(keys, handlers)))

    async def counts(self) -> Mapping[EventState, int]:
        """Return how many events are in each state."""
        return {EventState(decoded(each)): count for each, count in await self._run("counts")}

    async def published(self, after: int | None, *, limit: int = 100) -> Published:
        """Return the events put after a position; see `Inbox.published`."""
        position, rows = await self._run("published", "" if after is None else after, limit)
        return Published(position=position, events=[event_of(meta, text) for meta, text in rows])

    async def prune(self, *, older_than: float | None = None) -> int:
        """Forget events that are over; see `Inbox.prune`."""
        count, is_more = 0, True
        while is_more:
            forgotten, is_more = await self._run(
                "prune", milliseconds(self._keep_for if older_than is None else older_than)
            )
            count += forgotten
        return count

    async def aclose(self) -> None:
        """Close the connections; the next use opens new ones."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    def __repr__(self) -> str:
        return f"<RedisInbox {self._base} on {self._place}>"

    def _connect(self) -> RedisConnection:
        if self._connection is None:
            self._connection = RedisConnection(self._redis, timeout=_CALL)
        return self._connection

    async def _run(self, *arguments: Any) -> Any:
        """Return the script's reply to one of its commands."""
        if not self._is_checked:
            await self._check_server()
        return await self._connect().run(_SCRIPT, [self._base], arguments)

    async def _give_back(self, spec: Sequence[Argument]) -> None:
        """Make events due again whose claim reached no one, or is still on its way."""
        with suppress(RedisError, ClientClosedError):  # the lease ends by itself
            await self._connect().call(
                lambda client: _SCRIPT.run(client, [self._base], ["give_back", *spec]),
                timeout=_FAREWELL,
            )

    async def _check_server(self) -> None:
        """Warn, once, of a server that loses events; one that doesn't say is believed."""
        info = await self._answer("info")
        saves = await self._answer("config_get", "save")
        if self._is_checked:
            return
        self._is_checked = True
        if info.get("aof_enabled") == 0 and saves.get("save") == "":
            _log.warning(
                "The webhook inbox on %s keeps nothing on disk: a restart loses events that were "
                "answered with 200. Set appendonly yes.",
                self._place,
                extra=log_fields(place=self._place),
            )
        policy = str(info.get("maxmemory_policy", ""))
        if info.get("maxmemory") and policy.startswith("allkeys"):
            _log.warning(
                "The webhook inbox on %s drops events when its memory is full (%s). "
                "Set maxmemory-policy noeviction.",
                self._place,
                policy,
                extra=log_fields(place=self._place),
            )

    async def _answer(self, command: str, *arguments: str) -> Mapping[str, Any]:
        """Return what the server says of itself; nothing where that isn't allowed."""
        try:
            answer = await self._connect().call(lambda client: getattr(client, command)(*arguments))
        except ResponseError:  # managed servers have no CONFIG, or a user of few rights
            return {}
        return answer if isinstance(answer, dict) else {}
