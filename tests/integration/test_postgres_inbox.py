"""The inbox in a PostgreSQL database: the laws of all inboxes, and what only this one has."""

import asyncio
import os
import re
import signal
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pydantic
import pytest

from gather_async import AlreadyHandledError, ConfigurationError
from gather_async.postgres import PostgresInbox
from gather_async.testing.inbox_laws import LAWS, Law, event
from gather_async.webhooks import (
    ClaimedEvent,
    EventState,
    HandlerPolicy,
    PutResult,
    WebhookEvent,
    WebhookReceiver,
    sample,
)
from tests.servers import PostgresServer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@pytest.fixture
async def inbox(postgres_url: str) -> AsyncIterator[PostgresInbox]:
    """An empty inbox."""
    inbox = PostgresInbox(postgres_url)
    yield inbox
    await inbox.aclose()


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[Connection]:
    """A connection of the user's own, to a database with a table of results."""
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        await connection.execute("CREATE TABLE results (key text)")
        await connection.commit()
        yield connection


async def _claim(inbox: PostgresInbox, *, lease: float = 60.0) -> ClaimedEvent:
    (claimed,) = (await inbox.claim("", (), limit=1, lease=lease)).events
    return claimed


async def _results(connection: Connection) -> int:
    rows = await connection.execute("SELECT count(*) FROM results")
    found = await rows.fetchone()
    await connection.commit()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
async def test_law(law: Law, postgres_url: str) -> None:
    """The inbox keeps each law of inboxes, in the server's own time."""
    inbox, other = PostgresInbox(postgres_url), PostgresInbox(postgres_url)
    await law(inbox, other, asyncio.sleep)
    await inbox.aclose()
    await other.aclose()


async def test_a_completion_is_part_of_the_handlers_transaction(
    inbox: PostgresInbox, connection: Connection
) -> None:
    """Rolled back, neither the handler's changes nor its completion are there; committed, both."""
    await inbox.put(event())
    claimed = await _claim(inbox, lease=0.01)
    await connection.execute("INSERT INTO results VALUES ('k')")
    await inbox.complete(claimed, "h", connection=connection)
    await connection.rollback()
    await asyncio.sleep(0.02)
    claimed = await _claim(inbox, lease=0.01)
    assert (claimed.ended, await _results(connection)) == (frozenset(), 0)
    async with connection.transaction():
        await connection.execute("INSERT INTO results VALUES ('k')")
        await inbox.complete(claimed, "h", connection=connection)
    await asyncio.sleep(0.02)
    claimed = await _claim(inbox)
    assert (claimed.ended, await _results(connection)) == (frozenset({"h"}), 1)


async def test_two_runs_at_once_have_one_effect(
    postgres_url: str, inbox: PostgresInbox, connection: Connection
) -> None:
    """The second transaction waits for the first, and is refused once that is committed."""
    await inbox.put(event())
    claimed = await _claim(inbox)

    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(postgres_url) as own:
            await own.execute("INSERT INTO results VALUES ('k')")
            await inbox.complete(claimed, "h", connection=own)
            await asyncio.sleep(0.05)

    results = await asyncio.gather(run(), run(), run(), return_exceptions=True)
    kinds = Counter(type(result) for result in results)
    assert kinds == {type(None): 1, AlreadyHandledError: 2}
    assert await _results(connection) == 1


def test_a_completion_by_a_connection_without_asyncio(postgres_url: str) -> None:
    """A handler's own thread may use psycopg as it is without asyncio."""

    async def put_and_complete() -> frozenset[str]:
        inbox = PostgresInbox(postgres_url)
        await inbox.put(event())
        claimed = await _claim(inbox, lease=0.01)
        with psycopg.connect(postgres_url) as connection:
            await inbox.complete(claimed, "h", connection=connection)
        await asyncio.sleep(0.02)
        claimed = await _claim(inbox)
        await inbox.aclose()
        return claimed.ended

    assert asyncio.run(put_and_complete()) == {"h"}


async def test_a_second_run_of_a_handler_is_over(
    postgres_url: str, inbox: PostgresInbox, connection: Connection
) -> None:
    """A handler that is refused as already handled has not failed: its event is done."""
    hooks = WebhookReceiver("s", inbox=inbox, handling=HandlerPolicy(attempts=1))
    runs = asyncio.Queue[str]()

    @hooks.on("interview.updated")
    async def save(_: WebhookEvent) -> None:
        async with await psycopg.AsyncConnection.connect(postgres_url) as own:
            await own.execute("INSERT INTO results VALUES ('k')")
            await hooks.complete(connection=own)
        await runs.put("committed")
        # As a process would that took the event for lost.
        async with await psycopg.AsyncConnection.connect(postgres_url) as own:
            await own.execute("INSERT INTO results VALUES ('k')")
            await hooks.complete(connection=own)

    async with hooks:
        signed = sample("interview.updated", secret="s")
        assert (await hooks.receive(signed.body, signed.headers)).status == 200
        assert await runs.get() == "committed"
    again = PostgresInbox(postgres_url)
    assert await again.counts() == {EventState.WAITING: 0, EventState.DONE: 1}
    assert await _results(connection) == 1
    await again.aclose()


async def test_a_claim_that_reaches_no_one_is_given_back(
    postgres_url: str, inbox: PostgresInbox
) -> None:
    """Cancelled once its work is committed, it leaves the events due, and counts as no crash."""
    await inbox.put(event())
    claiming = asyncio.create_task(inbox.claim("", (), limit=9, lease=3600))
    await asyncio.sleep(0)
    held = "SELECT 1 FROM gather_inbox.waiting WHERE token IS NOT NULL"
    with psycopg.connect(postgres_url, autocommit=True) as other:
        # It is committed by a thread, while this one keeps the loop from hearing of it.
        while not other.execute(held).fetchall():
            pass
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert (await _claim(inbox)).crashes == 0


async def test_schemas_share_nothing(postgres_url: str, inbox: PostgresInbox) -> None:
    """An inbox in another schema of the database has its own events."""
    other = PostgresInbox(postgres_url, schema="other_1")
    assert await inbox.put(event()) is PutResult.NEW
    assert await other.put(event()) is PutResult.NEW
    await other.aclose()


@pytest.mark.parametrize("schema", ["user", "select", "default", "_1"])
async def test_a_schema_may_be_named_like_a_word_of_sql(
    postgres_url: str, connection: Connection, schema: str
) -> None:
    """It is opened, written to, and opened again, and takes part in the user's transaction."""
    for expected in (PutResult.NEW, PutResult.DUPLICATE):
        inbox = PostgresInbox(postgres_url, schema=schema)
        await inbox.open()
        assert await inbox.put(event()) is expected
        await inbox.aclose()
    claimed = await _claim(inbox)
    async with connection.transaction():
        await inbox.complete(claimed, "h", connection=connection)
    with pytest.raises(AlreadyHandledError):
        async with connection.transaction():
            await inbox.complete(claimed, "h", connection=connection)
    await inbox.aclose()


async def test_many_open_an_absent_schema_at_once(postgres_url: str) -> None:
    """One of those that start together makes the tables."""
    boxes = [PostgresInbox(postgres_url) for _ in range(8)]
    results = await asyncio.gather(*(each.put(event()) for each in boxes))
    assert Counter(results) == {PutResult.NEW: 1, PutResult.DUPLICATE: 7}
    await asyncio.gather(*(each.aclose() for each in boxes))


async def test_a_user_without_the_right_to_make_schemas(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    """A schema that was made for the user is enough; without one, the message says what lacks."""
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
        await admin.execute("DROP ROLE IF EXISTS worker; CREATE ROLE worker LOGIN")
        url = postgres_url.replace("postgres@", "worker:hunter2@")
        inbox = PostgresInbox(url)
        with pytest.raises(ConfigurationError, match="permission denied for database") as caught:
            await inbox.open()
        assert f"127.0.0.1:{postgres_server.port}/postgres" in str(caught.value)
        assert "hunter2" not in str(caught.value) + repr(inbox)
        await admin.execute("CREATE SCHEMA gather_inbox AUTHORIZATION worker")
        assert await inbox.put(event()) is PutResult.NEW
        await inbox.aclose()
        await admin.execute("DROP SCHEMA gather_inbox CASCADE; DROP ROLE worker")


async def test_an_address_that_is_hidden(postgres_url: str) -> None:
    """The address may come as a ``SecretStr``, or as bytes, as those of the other servers may."""
    for url in (pydantic.SecretStr(postgres_url), postgres_url.encode()):
        inbox = PostgresInbox(url)
        await inbox.open()
        await inbox.aclose()


async def test_a_server_that_is_not_there(postgres_server: PostgresServer) -> None:
    """At the start it is a configuration error that names the server."""
    inbox = PostgresInbox("postgresql://user:hunter2@127.0.0.1:1/db")
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:1/db") as caught:
        await inbox.open()
    assert "hunter2" not in str(caught.value)
    await inbox.aclose()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("postgresql://user:hunter2@host:port:5/db?x=1&y", {}),
        ("postgresql://h/d", {"schema": "Inbox; DROP TABLE x"}),
        ("postgresql://h/d", {"schema": ""}),
        ("postgresql://h/d", {"schema": "pg_inbox"}),
        ("postgresql://h/d", {"keep_for": 60}),
        ("postgresql://h/d", {"schema": 5}),
        (None, {}),
    ],
)
def test_wrong_arguments(url: Any, options: dict[str, Any]) -> None:
    """They are refused at once, without a password in the message."""
    with pytest.raises(ConfigurationError) as caught:
        PostgresInbox(url, **options)
    assert "hunter2" not in str(caught.value)


async def test_a_restart_of_the_server_costs_no_event(
    inbox: PostgresInbox, postgres_server: PostgresServer
) -> None:
    """An idle connection that was lost is made anew; while the server is gone, puts fail."""
    await inbox.put(event("before"))
    postgres_server.stop()
    with pytest.raises(psycopg.OperationalError):
        await inbox.put(event("meanwhile"))
    postgres_server.start()
    assert await inbox.put(event("after")) is PutResult.NEW
    postgres_server.stop(signal.SIGQUIT)
    postgres_server.start()
    assert await inbox.put(event("before")) is PutResult.DUPLICATE
    assert await inbox.counts() == {EventState.WAITING: 2}


async def test_a_transaction_that_holds_the_lock_delays_and_is_waited_for(
    inbox: PostgresInbox, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that can't get its turn fails before the sender gives up, and the next works."""
    monkeypatch.setattr("gather_async.postgres._LOCK_TIMEOUT", "50ms")
    await inbox.open()
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtext('gather_async'), hashtext('gather_inbox'))"
    )
    with pytest.raises(psycopg.errors.LockNotAvailable):
        await inbox.put(event())
    await connection.rollback()
    assert await inbox.put(event()) is PutResult.NEW


async def test_texts_that_the_server_refuses(inbox: PostgresInbox) -> None:
    """A name with a NUL is stored without it, rather than refused for ever."""
    assert await inbox.put(event("k", "x\0y")) is PutResult.NEW
    assert (await _claim(inbox)).event.name == "x\N{REPLACEMENT CHARACTER}y"


async def test_it_works_before_and_after_a_fork(inbox: PostgresInbox) -> None:
    """The child has a connection of its own, and leaves its parent's alone."""
    await inbox.put(event("parent"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            put = asyncio.new_event_loop().run_in_executor(None, _put_in_child, inbox)
            code = 0 if put.get_loop().run_until_complete(put) is PutResult.NEW else 2
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await inbox.put(event("child")) is PutResult.DUPLICATE
    assert await inbox.counts() == {EventState.WAITING: 2}


def _put_in_child(inbox: PostgresInbox) -> PutResult:
    return asyncio.run(inbox.put(event("child")))


async def test_the_program_of_the_page(
    postgres_url: str, inbox: PostgresInbox, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's handler stores a result once, and its event is done."""
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n((?:(?!```).)*?DATABASE_URL.*?)```", page, re.DOTALL)
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    monkeypatch.setenv("GATHER_WEBHOOK_SECRET", "s")
    await connection.execute("DROP TABLE results")
    await connection.execute("CREATE TABLE results (candidate_interview text)")
    await connection.commit()
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(program, "webhooks.md", "exec"), names)
    async with names["hooks"] as hooks:
        signed = sample("candidate_interview.completed", secret="s")
        assert (await hooks.receive(signed.body, signed.headers)).status == 200
    assert await _results(connection) == 1
    assert (await inbox.counts())[EventState.DONE] == 1


_WORKERS = """
    import asyncio, os, sys, psycopg
    from contextlib import suppress
    from gather_async.postgres import PostgresInbox
    from gather_async.webhooks import HandlerPolicy, WebhookReceiver

    url = sys.argv[1]
    for _ in range(4):  # what they import is imported once
        if os.fork() == 0:
            break
    else:
        with suppress(ChildProcessError):
            while True:
                os.wait()
        sys.exit()

    policy = HandlerPolicy(lease=1.0, poll=0.05, base=0.05, cap=0.05)
    hooks = WebhookReceiver("s", inbox=PostgresInbox(url), handling=policy)

    async def effect(event, kind):
        async with await psycopg.AsyncConnection.connect(url) as connection:
            key = f"{kind} {event.data['number']}"
            await connection.execute("INSERT INTO results VALUES (%s)", (key,))
            await asyncio.sleep(0.01)
            await hooks.complete(connection=connection)

    @hooks.on("interview.updated")
    async def mail(event):
        await effect(event, "mail")

    @hooks.on("interview.updated")
    async def crm(event):
        await effect(event, "crm")

    async def main():
        async with hooks:
            os.write(1, f"{os.getpid()}\\n".encode())  # at once: the pipe is shared
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


async def test_a_killed_worker_costs_nothing_and_repeats_nothing(
    postgres_url: str, inbox: PostgresInbox, connection: Connection
) -> None:
    """Of 200 events, with four workers of which one is killed, each effect is there once."""
    workers = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(_WORKERS), postgres_url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    hooks = WebhookReceiver("s", inbox=inbox)
    try:
        assert workers.stdout is not None
        ready = [int(await workers.stdout.readline()) for _ in range(4)]
        for number in range(200):
            signed = sample("interview.updated", secret="s", data={"number": number})
            assert (await hooks.receive(signed.body, signed.headers)).status == 200
            if number == 60:
                os.kill(ready[0], signal.SIGKILL)
        while (await inbox.counts()).get(EventState.WAITING):  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.05)
        rows = await (await connection.execute("SELECT key FROM results")).fetchall()
        expected = {f"{kind} {n}" for kind in ("mail", "crm") for n in range(200)}
        assert sorted(row[0] for row in rows) == sorted(expected)
        assert (await inbox.counts())[EventState.DONE] == 200
    finally:
        os.killpg(workers.pid, signal.SIGKILL)
        await workers.communicate()


async def test_a_role_with_serializable_transactions(
    postgres_url: str, connection: Connection
) -> None:
    """Two processes store events at once, whatever isolation the role has by default."""
    await connection.execute("ALTER ROLE postgres SET default_transaction_isolation = serializable")
    await connection.commit()
    boxes = [PostgresInbox(postgres_url) for _ in range(2)]
    try:
        puts = [each.put(event(f"k{number}")) for number in range(20) for each in boxes]
        results = Counter(await asyncio.gather(*puts))
    finally:
        await connection.execute("ALTER ROLE postgres RESET default_transaction_isolation")
        await connection.commit()
        await asyncio.gather(*(each.aclose() for each in boxes))
    assert results == {PutResult.NEW: 20, PutResult.DUPLICATE: 20}


async def test_temporary_tables_of_others_behind_a_pooler(
    inbox: PostgresInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend in which another client made tables of the same names is used all the same."""
    connect = psycopg.connect

    def with_tables(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **options)
        connection.execute("CREATE TEMP TABLE events (n int); CREATE TEMP TABLE version (n int)")
        return connection

    monkeypatch.setattr(psycopg, "connect", with_tables)
    assert await inbox.put(event()) is PutResult.NEW
    assert await inbox.counts() == {EventState.WAITING: 1}


async def test_a_completion_needs_a_transaction(
    inbox: PostgresInbox, connection: Connection
) -> None:
    """A connection in autocommit mode is refused, unless it is in a transaction."""
    await inbox.put(event())
    claimed = await _claim(inbox, lease=0.01)
    await connection.set_autocommit(True)
    for refused in (connection, connection.cursor()):
        with pytest.raises(ConfigurationError, match="autocommit"):
            await inbox.complete(claimed, "h", connection=refused)
    async with connection.transaction():
        await inbox.complete(claimed, "h", connection=connection)
    await asyncio.sleep(0.02)
    assert (await _claim(inbox)).ended == {"h"}


async def test_a_user_who_may_only_read(postgres_url: str, inbox: PostgresInbox) -> None:
    """It is refused at the start, whether it may read the tables or not even that."""
    await inbox.put(event())
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
        await admin.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN")
        reader = PostgresInbox(postgres_url.replace("postgres@", "reader@"))
        with pytest.raises(ConfigurationError, match="permission denied for schema gather_inbox"):
            await reader.open()
        await admin.execute("GRANT USAGE ON SCHEMA gather_inbox TO reader")
        await admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA gather_inbox TO reader")
        with pytest.raises(ConfigurationError, match="permission denied for table"):
            await reader.open()
        await reader.aclose()
        await admin.execute("DROP OWNED BY reader; DROP ROLE reader")


async def test_tables_that_are_dropped_under_a_running_receiver(
    inbox: PostgresInbox, connection: Connection
) -> None:
    """The next event is refused, rather than lost, and those after it are stored in new tables."""
    await inbox.put(event())
    await connection.execute("DROP SCHEMA gather_inbox CASCADE")
    await connection.commit()
    with pytest.raises(psycopg.errors.UndefinedTable):
        await inbox.put(event())
    assert await inbox.put(event()) is PutResult.NEW


async def test_closing_ends_though_the_server_says_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the server's answer is broken off, and its thread ends."""
    inbox = PostgresInbox(postgres_url)
    await inbox.open()
    (thread,) = (each for each in threading.enumerate() if each.name == "gather-async-postgres")
    monkeypatch.setattr("gather_async.postgres._ANSWER_TIMEOUT", 0.1)
    with pytest.raises(TimeoutError):
        await inbox._run(lambda connection: connection.execute("SELECT pg_sleep(60)"))
    async with asyncio.timeout(5):
        await inbox.aclose()
    thread.join(5)
    assert not thread.is_alive()
