"""An inbox in a PostgreSQL database, shared by processes of any number of machines."""

import asyncio
import os
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from inspect import isawaitable
from typing import Any, Final, TypeVar

from attrs import field, frozen

from gather_async.errors import AlreadyHandledError, ClientClosedError, ConfigurationError
from gather_async.storage import Cursor, DatabaseStore
from gather_async.validators import Secret, hide_arguments, revealed
from gather_async.webhooks.inbox import ClaimedEvent
from gather_async.webhooks.sql_inbox import SQLInbox, abandon
from gather_async.webhooks.sql_queries import COMPLETION

try:
    import psycopg
    from psycopg import conninfo, pq
except ImportError as _missing:  # pragma: no cover - the tests have the extra
    raise ConfigurationError(
        "gather_async.postgres needs psycopg: pip install 'gather-async[postgres]'"
    ) from _missing

__all__ = ["PostgresInbox"]

T = TypeVar("T")

# The sender gives up after 5 seconds. Source: /api-reference/webhooks
_LOCK_TIMEOUT: Final = "3s"
# A machine that vanished within a transaction holds the lock for so long.
_IDLE_TIMEOUT: Final = "10s"
# Seconds after which a caller waits no longer for a server that says nothing.
_ANSWER_TIMEOUT: Final = 10.0
# Seconds and counts, so that a dead peer is noticed within the same time.
_CONNECTION: Final = {
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "gather-async",
}
_SCHEMA_NAME: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}", re.ASCII)

_VERSION: Final = 1
# An event is in waiting or in ended. Neither holds its text, which can be a megabyte, so that a
# change of state doesn't write it again.
_TABLES: Final = """
    CREATE TABLE version (version integer NOT NULL);
    INSERT INTO version VALUES (1);
    CREATE TABLE events (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL UNIQUE,
        name text NOT NULL, text text NOT NULL, received_at float8 NOT NULL,
        receiver text NOT NULL, tenant text, synthetic boolean NOT NULL,
        signed boolean NOT NULL, default_event text
    );
    CREATE TABLE subjects (
        subject text PRIMARY KEY, state text NOT NULL, synthetic boolean NOT NULL,
        event_id bigint NOT NULL, seen_at float8 NOT NULL
    );
    CREATE INDEX subjects_by_age ON subjects (seen_at);
    CREATE TABLE waiting (
        event_id bigint PRIMARY KEY, receiver text NOT NULL, waits_for text NOT NULL DEFAULT '',
        due_at float8 NOT NULL, starts integer NOT NULL DEFAULT 0, token text
    );
    CREATE INDEX waiting_due ON waiting (receiver, waits_for, due_at, event_id);
    CREATE INDEX waiting_claimed ON waiting (token, due_at) WHERE token IS NOT NULL;
    CREATE TABLE ended (
        event_id bigint PRIMARY KEY,
        state text NOT NULL CHECK (state IN ('done', 'ignored', 'dead')),
        ended_at float8 NOT NULL
    );
    CREATE INDEX ended_by_age ON ended (state, ended_at, event_id);
    CREATE TABLE handled (
        event_id bigint NOT NULL, handler text NOT NULL,
        state text NOT NULL CHECK (state IN ('done', 'failed', 'dead')),
        failures integer NOT NULL DEFAULT 0, due_at float8, ended_at float8, error text,
        PRIMARY KEY (event_id, handler)
    );
    CREATE INDEX handled_dead ON handled (ended_at) WHERE state = 'dead';
    CREATE TABLE handlers (
        receiver text NOT NULL, handler text NOT NULL, events text NOT NULL,
        until float8 NOT NULL, PRIMARY KEY (receiver, handler)
    );
"""


class PostgresInbox(SQLInbox):
    """Events in a schema of a PostgreSQL database (10 or newer), shared by any processes.

    It has one connection, opened at the start or with the first event, and works through
    PgBouncer, also in transaction mode. Times are those of the server's clock. One
    transaction at a time uses the schema, under an advisory lock: events are published in
    the order of their commits. The tables hold personal data. It may be used
    before and after a fork.

    A handler gets exactly-once effects by `WebhookReceiver.complete` with a
    ``connection`` of its own: its changes and the completion are committed together, or
    neither is::

        @hooks.on("candidate_interview.completed")
        async def save(event):
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute("INSERT INTO results ...")
                await hooks.complete(connection=connection)
    """

    @hide_arguments
    def __init__(
        self,
        url: str | bytes | Secret,
        *,
        schema: str = "gather_inbox",
        keep_for: float = 7 * 86_400.0,
    ) -> None:
        """Make an inbox; nothing is opened yet.

        Args:
            url: ``postgresql://user:password@host/database``, or any other connection string
                of libpq, as text or as pydantic's ``SecretStr``. Timeouts in it win over ours.
            schema: Holds the tables; made if absent. Lowercase letters, digits and underscores,
                not ``pg_`` first, which is the server's own.
            keep_for: Seconds for which an event that is done or ignored is kept, so that its
                repetition is recognised; from 3600. Dead letters are kept until they are
                replayed or discarded.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        self._connector = _Connector(_complete(url), _checked_schema(schema))
        self._remember(keep_for)
        self._store: DatabaseStore[_Connection] | None = None

    @property
    def is_shared(self) -> bool:
        """True: other processes may use the same schema."""
        return True

    async def open(self) -> None:
        """Connect, and make the tables if they are absent.

        Raises:
            ConfigurationError: The server can't be reached, or refuses; the message says
                which server, and why.
        """
        try:
            await super().open()
        except (psycopg.Error, TimeoutError) as error:
            raise ConfigurationError(
                f"The webhook inbox can't be opened at {self._connector.place}: "
                f"{str(error).strip() or 'it gives no answer'}"
            ) from error

    async def complete(
        self, claimed: ClaimedEvent, handler: str, *, connection: Any = None
    ) -> None:
        """Record that a handler succeeded.

        Args:
            claimed: The event.
            handler: The handler's name.
            connection: A connection or cursor of psycopg, async or not, to the same database: the
                completion becomes part of its transaction, which is the caller's to commit.

        Raises:
            AlreadyHandledError: Only with ``connection``: the success was recorded before,
                so the caller's transaction must be rolled back; leave the handler by this error.
            ConfigurationError: The connection is in autocommit mode, and in no transaction.
        """
        if connection is None:
            await super().complete(claimed, handler)
            return
        _require_transaction(connection)
        # A second run waits here for the first one's commit, and then changes nothing.
        statement = COMPLETION.format(schema=f"{self._connector.quoted}.")
        cursor = connection.execute(
            _in_psycopg(f"{statement} WHERE handled.state != 'done'"),
            (handler, claimed.event.key),
        )
        if isawaitable(cursor):
            cursor = await cursor
        if not cursor.rowcount:
            raise AlreadyHandledError(
                f"The handler {handler} has handled {claimed.event.key} before: "
                "roll your transaction back."
            )

    async def aclose(self) -> None:
        """Finish, within 10 seconds, and disconnect; the next use connects again."""
        if (store := self._store) is None:
            return
        self._store = None
        later = asyncio.get_running_loop().call_later
        timer = later(_ANSWER_TIMEOUT, lambda: _break_off(store.connection))
        try:
            await store.aclose()
        finally:
            timer.cancel()

    def leave_in_child(self) -> None:
        """Leave the connection, and its thread, to the parent of a fork."""
        abandon(self._store)
        self._store = None

    def __repr__(self) -> str:
        return f"<PostgresInbox {self._connector.place}, schema {self._connector.schema}>"

    async def _run(self, work: Callable[[Any], T], *, writes: bool = True) -> T:
        # Reading takes the lock, too: only a transaction knows the schema behind PgBouncer.
        while True:
            store = self._store = self._store or DatabaseStore(self._connector)
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT):
                    return await store.run(work)
            except ClientClosedError:
                if self._store is store:
                    raise

    def _start(self, work: Callable[[Any], object]) -> None:
        if self._store is not None:
            self._store.start(work)

    def _now(self, connection: "_Connection") -> float:
        seconds = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(seconds.fetchone()[0])

    async def _shrink(self, *, is_over: bool) -> None:
        """Leave it to the server: autovacuum makes the space free for new events."""


@frozen
class _Connector:
    """Maker of connections to the schema."""

    url: str = field(repr=False)
    schema: str
    thread_name: str = "gather-async-postgres"
    lost: type[Exception] = psycopg.OperationalError

    @property
    def place(self) -> str:
        """Host, port and database, without the password."""
        parts = conninfo.conninfo_to_dict(self.url)
        host = parts.get("host") or parts.get("hostaddr") or "the local socket"
        return f"{host}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"

    @property
    def quoted(self) -> str:
        """The schema's name as an identifier, which may be a word of SQL such as ``user``."""
        return f'"{self.schema}"'

    @property
    def begin(self) -> str:
        """Statements of one round trip, whose settings end with the transaction."""
        return (
            # Whatever the role's default is: others read rows before they have the lock.
            "BEGIN ISOLATION LEVEL READ COMMITTED;"
            # Unless named, pg_temp goes first: behind PgBouncer with others' temporary tables.
            f" SET LOCAL search_path = {self.quoted}, pg_catalog, pg_temp;"
            f" SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}';"
            f" SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_TIMEOUT}';"
            # Where the database may lose what it has confirmed, this must not.
            " SELECT set_config('synchronous_commit', 'on', true)"
            " WHERE current_setting('synchronous_commit') = 'off';"
            f" SELECT pg_advisory_xact_lock(hashtext('gather_async'), hashtext('{self.schema}'))"
        )

    def connect(self) -> "_Connection":
        """Return a connection to a schema of the right version."""
        connection = _Connection(
            # Prepared statements belong to a session, of which PgBouncer has others.
            psycopg.connect(self.url, autocommit=True, prepare_threshold=None)
        )
        try:
            connection.execute(self.begin)
            # To read a catalog is to see what another made while this waited for the lock.
            connection.execute("SELECT count(*) FROM pg_catalog.pg_namespace")
            self._migrate(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def is_broken(self, connection: "_Connection") -> bool:
        """Return whether the connection was lost."""
        return connection.is_lost

    def _migrate(self, connection: "_Connection") -> None:
        """Make the tables if they are absent."""
        if connection.execute(f"SELECT to_regclass('{self.quoted}.version')").fetchone()[0] is None:
            # Not IF NOT EXISTS, which asks for the right to make one even if it exists.
            if connection.execute(f"SELECT to_regnamespace('{self.quoted}')").fetchone()[0] is None:
                connection.execute(f"CREATE SCHEMA {self.quoted}")
            # Anew: a path that was looked up before the schema was there goes without it.
            connection.execute(f"SET LOCAL search_path = {self.quoted}, pg_temp; {_TABLES}")
        (version,) = connection.execute("SELECT version FROM version").fetchone()
        if version > _VERSION:
            raise ConfigurationError(
                f"The schema {self.schema} has version {version}, this program knows "
                f"{_VERSION}: install the newer gather-async, or use another schema."
            )
        connection.execute("DELETE FROM waiting WHERE false")  # raises where only reading works


@frozen
class _Connection:
    """A connection of psycopg that takes the statements which SQLite takes."""

    _connection: "psycopg.Connection[Any]" = field(repr=False)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it a failed one."""
        status = self._connection.info.transaction_status
        return status in {pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR}

    @property
    def is_lost(self) -> bool:
        """Whether the server can't be reached by it any more."""
        return self._connection.closed

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Carry out a statement, or without parameters several."""
        values = [_storable(value) for value in parameters] or None
        try:
            return self._connection.execute(_in_psycopg(sql) if values else sql.encode(), values)
        except psycopg.errors.UndefinedTable:  # dropped meanwhile: the next connection makes it
            self._connection.close()
            raise

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> None:
        """Carry out a statement with each of the parameters, in one round trip."""
        rows = [[_storable(value) for value in each] for each in parameters]
        with self._connection.cursor() as cursor:
            cursor.executemany(_in_psycopg(sql), rows)

    def shut_down(self) -> None:
        """End the server's answer; called from another thread."""
        with socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


def _require_transaction(connection: Any) -> None:
    """Refuse a connection that commits each statement by itself."""
    whole = getattr(connection, "connection", connection)  # a cursor has one
    if getattr(whole, "autocommit", False) and not whole.info.transaction_status:  # idle
        raise ConfigurationError(
            "complete(connection=...) needs a transaction, but this connection is in autocommit "
            "mode: call it within `async with connection.transaction():`, with your changes."
        )


def _break_off(connection: _Connection | None) -> None:
    """Let the thread that waits for the server's answer fail."""
    with suppress(psycopg.Error, OSError):
        if connection is not None:
            connection.shut_down()


def _in_psycopg(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()


def _storable(value: Any) -> Any:
    """Return a value that PostgreSQL takes: its texts have no NUL."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


def _complete(url: object) -> str:
    """Return a connection string with our timeouts where it has none of its own."""
    text: Any = revealed(url)
    try:
        given = conninfo.conninfo_to_dict(text)
    except (psycopg.Error, AttributeError, TypeError) as error:
        # Its message may quote the URL, and with it the password.
        raise ConfigurationError(
            "The inbox's address is no connection string of PostgreSQL, "
            "such as postgresql://user:password@host/database."
        ) from error
    return conninfo.make_conninfo("", **(_CONNECTION | given))


def _checked_schema(schema: str) -> str:
    if not isinstance(schema, str) or not _SCHEMA_NAME.fullmatch(schema):
        raise ConfigurationError(
            "schema must be lowercase letters, digits and underscores, and neither a digit nor "
            "pg_ first."
        )
    return schema
