"""One HTTP exchange: what was sent, what broke, and in which loop."""

import asyncio
import contextlib
import gzip
import os
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from gather_async import GatherClient
from gather_async.clock import Deadlines
from gather_async.errors import (
    ClientClosedError,
    ConfigurationError,
    GatherConnectionError,
    GatherTimeoutError,
    ResponseDecodeError,
)
from gather_async.protocol.responses import Response
from gather_async.transport import SendState, Transport, client_timeout

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    """Serve raw bytes on a free port and give the base URL."""
    talks: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks[asyncio.current_task()] = writer
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in talks.values():
            writer.transport.abort()
        await asyncio.gather(*filter(None, talks))


@contextlib.asynccontextmanager
async def transport_to(base: str, **options: object) -> AsyncIterator[Transport]:
    """Give a transport that is closed in the end."""
    transport = Transport(base=base, **options)  # type: ignore[arg-type]  # forwarded
    try:
        yield transport
    finally:
        await transport.aclose()


async def exchange(
    transport: Transport,
    method: str = "GET",
    *,
    sending: SendState | None = None,
    timeout: aiohttp.ClientTimeout | None = None,
) -> Response:
    """Send one request."""
    return await transport.exchange(
        method,
        "/x",
        headers={"x-api-key": "qapi_secret"},
        body=None if method == "GET" else b"{}",
        timeout=timeout or client_timeout(5.0),
        state=sending or fresh(),
    )


def fresh(resent: list[bool] | None = None) -> SendState:
    """Return a record of an exchange that has not begun."""
    return SendState(on_resent=lambda: (resent if resent is not None else []).append(True))


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """Read a request's head."""
    return await reader.readuntil(b"\r\n\r\n")


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of a connection."""
    while True:
        await read_head(reader)
        writer.write(OK)
        await writer.drain()


async def test_answer_has_status_lower_case_headers_and_body() -> None:
    """An answer is given as it came, its header names in lower case."""
    async with serving(answer_all) as base, transport_to(base) as transport:
        answer = await exchange(transport)
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["content-length"] == "2"


async def test_refused_connection_was_not_sent() -> None:
    """A connection that can't be made is known not to have carried the request."""
    async with serving(answer_all) as base:
        pass
    sending = fresh()
    async with transport_to(base) as transport:
        with pytest.raises(GatherConnectionError) as caught:
            await exchange(transport, "POST", sending=sending)
    assert not sending.was_sent
    assert caught.value.maybe_processed is False


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_write_cut_after_its_headers_may_have_been_processed(method: str) -> None:
    """A write whose answer never comes is ambiguous, and is never sent twice by itself."""
    heads: list[bytes] = []

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))

    sending = fresh()
    async with serving(cut) as base, transport_to(base) as transport:
        with pytest.raises(GatherConnectionError) as caught:
            await exchange(transport, method, sending=sending)
    assert caught.value.maybe_processed is True
    assert (sending.sends, len(heads)) == (1, 1)


@pytest.mark.parametrize("lent", [False, True])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
async def test_write_is_never_sent_twice_by_aiohttp(method: str, lent: bool) -> None:
    """A write on a kept connection that breaks isn't repeated, unless that does no harm."""
    heads: list[bytes] = []

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await writer.drain()
        heads.append(await read_head(reader))

    async with contextlib.AsyncExitStack() as stack:
        base = await stack.enter_async_context(serving(answer_once))
        session = await stack.enter_async_context(aiohttp.ClientSession()) if lent else None
        transport = await stack.enter_async_context(transport_to(base, borrowed=session))
        await exchange(transport)
        state = fresh()
        state.may_resend = False
        with pytest.raises(GatherConnectionError) as caught:
            await exchange(transport, method, sending=state)
    assert caught.value.maybe_processed
    assert (len(heads), state.sends) == (1, 1)


async def test_response_that_nothing_asked_for_is_not_taken_for_the_next() -> None:
    """What arrives on an idle connection ends it, instead of shifting every later response."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            writer.write(OK)
            await writer.drain()
            writer.write(OK.replace(b"{}", b"[]"))
            await writer.drain()

    async with serving(talk) as base, transport_to(base) as transport:
        for _ in range(3):
            assert (await exchange(transport)).body == b"{}"
            for _ in range(20):
                await asyncio.sleep(0)


def responding(head: str, body: bytes) -> Talk:
    """Return what answers a request with this and ends the connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body)
        await writer.drain()

    return talk


RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
PACKED = {
    "gzip": gzip.compress(b"{}" * 500, mtime=0),
    "x-gzip": gzip.compress(b"{}" * 400, mtime=0) + gzip.compress(b"{}" * 100, mtime=0),
    "deflate": zlib.compress(b"{}" * 500),
    "Deflate": RAW.compress(b"{}" * 500) + RAW.flush(),
    "identity": b"{}" * 500,
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("has_length", [True, False])
async def test_body_is_unpacked_up_to_the_limit(packing: str, has_length: bool) -> None:
    """A body may have as many bytes as the limit, unpacked, and not one more."""
    body = PACKED[packing]
    head = f"Content-Encoding: {packing}"
    head += f"\r\nContent-Length: {len(body)}" if has_length else ""
    async with serving(responding(head, body)) as base:
        async with transport_to(base, max_response=1000) as transport:
            assert (await exchange(transport)).body == b"{}" * 500
        async with transport_to(base, max_response=999) as transport:
            with pytest.raises(ResponseDecodeError, match=r"max_response \(999 bytes\)") as caught:
                await exchange(transport, "POST")
    assert caught.value.maybe_processed


async def test_packed_bomb_takes_no_memory() -> None:
    """A body that would unpack to a thousand times its size is refused early."""
    bomb = gzip.compress(bytes(64 * 2**20))
    async with (
        serving(responding("Content-Encoding: gzip", bomb)) as base,
        transport_to(base, max_response=2**20) as transport,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(ResponseDecodeError, match="max_response"):
                await exchange(transport)
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("packing", "body", "problem"),
    [
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], "ends before"),
        ("gzip", b"plain text", "can't be unpacked"),
        ("br", b"\x0b", "not asked for"),
    ],
)
async def test_body_that_cannot_be_unpacked_says_so(
    packing: str, body: bytes, problem: str
) -> None:
    """A packing that is broken or wasn't asked for is a response that makes no sense."""
    async with (
        serving(responding(f"Content-Encoding: {packing}", body)) as base,
        transport_to(base) as transport,
    ):
        with pytest.raises(ResponseDecodeError, match=problem):
            await exchange(transport)


async def test_slow_body_ends_with_the_deadline_for_good() -> None:
    """A body that trickles in is given up at the deadline, and needs no second attempt."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await reader.read()

    async with serving(trickle) as base, transport_to(base) as transport:
        with pytest.raises(GatherTimeoutError, match="longer than its timeout") as caught:
            await exchange(transport, timeout=aiohttp.ClientTimeout(total=0.05))
    assert caught.value.is_permanent


async def test_error_says_host_and_reason() -> None:
    """A failed connection names the server and why, as text and as attributes."""
    async with serving(answer_all) as base:
        pass
    async with transport_to(base) as transport:
        with pytest.raises(GatherConnectionError, match=r"127\.0\.0\.1 .*[Cc]onnect") as caught:
            await exchange(transport)
    error = caught.value
    assert error.host == "127.0.0.1"
    assert error.reason in str(error)
    assert not error.is_permanent


@pytest.mark.parametrize(
    "answer",
    [
        b"this is no HTTP with ann@example.com\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nann@ex",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
    ids=["no status line", "two lengths", "a long header"],
)
async def test_response_that_is_no_http_is_called_that(answer: bytes) -> None:
    """The reason is what is wrong with it, in words, and nothing that was sent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async with serving(talk) as base, transport_to(base) as transport:
        with pytest.raises(GatherConnectionError, match="no valid HTTP") as caught:
            await exchange(transport)
    assert caught.value.reason in str(caught.value)
    assert "ann@" not in str(caught.value)


async def test_server_without_tls_is_no_use_to_try_again() -> None:
    """A failed handshake can't mend itself, and says what failed."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"this is no TLS")
        await writer.drain()

    async with (
        serving(greet) as base,
        transport_to(base.replace("http:", "https:")) as transport,
    ):
        with pytest.raises(GatherConnectionError, match="can't help") as caught:
            await exchange(transport, "POST")
    assert "SSL" in caught.value.reason
    assert caught.value.is_permanent
    assert not caught.value.maybe_processed


async def test_proxy_that_is_not_there_is_the_reason() -> None:
    """A proxy that refuses connections is distinguished from a server that does."""
    async with serving(answer_all) as gone:
        pass
    async with transport_to("https://gather.example", proxy=gone) as transport:
        with pytest.raises(GatherConnectionError, match="proxy can't be reached") as caught:
            await exchange(transport)
    assert caught.value.host == "gather.example"


@pytest.mark.parametrize(("status", "permanent"), [(407, True), (403, True), (503, False)])
async def test_proxy_that_refuses_is_named_with_its_status(status: int, permanent: bool) -> None:
    """What the proxy answered is the reason; only its own failures may mend themselves."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
        await writer.drain()

    async with (
        serving(refuse) as proxy,
        transport_to("https://gather.example", proxy=proxy) as transport,
    ):
        with pytest.raises(GatherConnectionError, match=f"proxy answered {status}") as caught:
            await exchange(transport)
    assert caught.value.is_permanent is permanent
    assert caught.value.maybe_processed is False


async def test_lent_session_gives_the_same_results() -> None:
    """A lent session's own defaults change neither what is sent nor what is returned."""
    heads: list[bytes] = []

    async def not_found(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        body = gzip.compress(b"{}")
        writer.write(
            b"HTTP/1.1 404 Not Found\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        writer.write(body)
        await writer.drain()

    async with (
        serving(not_found) as base,
        aiohttp.ClientSession(
            base_url="https://elsewhere.example/",
            raise_for_status=True,
            headers={"x-api-key": "theirs", "Accept-Encoding": "br"},
            timeout=aiohttp.ClientTimeout(total=1e-9),
            auto_decompress=False,
        ) as session,
        transport_to(base, borrowed=session) as transport,
    ):
        response = await exchange(transport)
    assert (response.status, response.body) == (404, b"{}")
    assert b"x-api-key: qapi_secret" in heads[0]
    assert b"theirs" not in heads[0]


@pytest.mark.parametrize("name", ["content-encoding", "Content-Length", "Expect", "Range"])
async def test_lent_session_that_describes_one_request_is_refused(name: str) -> None:
    """Default headers that fit one body or condition one request would spoil every request."""
    async with aiohttp.ClientSession(headers={name: "x", "X-Own": "y"}) as session:
        with pytest.raises(ConfigurationError, match=f"(?i)sends {name} with every request"):
            GatherClient("qapi_secret", session=session)


async def test_closing_from_several_tasks_at_once_is_harmless() -> None:
    """Each of several tasks may close the transport, in whatever order."""
    async with serving(answer_all) as base, transport_to(base) as transport:
        await exchange(transport)
        await asyncio.gather(*(transport.aclose() for _ in range(3)))


async def test_aiohttp_resend_of_a_read_is_counted() -> None:
    """A read that aiohttp sends again on its own counts as one more request."""
    heads: list[bytes] = []

    async def cut_on_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        if len(heads) == 2:
            return
        writer.write(OK)
        await writer.drain()
        heads.append(await read_head(reader))

    resent: list[bool] = []
    async with serving(cut_on_second) as base, transport_to(base) as transport:
        await exchange(transport)
        sending = fresh(resent)
        answer = await exchange(transport, sending=sending)
    assert answer.status == 200
    assert (len(heads), sending.sends, resent) == (3, 2, [True])


async def test_truncated_body_is_a_broken_connection() -> None:
    """A body shorter than announced is a lost answer, not an answer."""

    async def truncate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")
        await writer.drain()

    async with serving(truncate) as base, transport_to(base) as transport:
        with pytest.raises(GatherConnectionError) as caught:
            await exchange(transport, "POST")
    assert caught.value.maybe_processed is True


async def test_garbage_answer_never_shows_the_key() -> None:
    """An answer that isn't HTTP is a broken connection, with no trace of the request's headers."""

    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"\x00\xff garbage\r\n\r\n")
        await writer.drain()

    async with serving(garble) as base, transport_to(base) as transport:
        with pytest.raises(GatherConnectionError) as caught:
            await exchange(transport)
    error: BaseException | None = caught.value
    while error is not None:
        assert "qapi_secret" not in f"{error} {error!r}"
        error = error.__cause__


@pytest.mark.parametrize(
    "timeout",
    [aiohttp.ClientTimeout(total=0.05), aiohttp.ClientTimeout(total=None, sock_read=0.05)],
    ids=["total", "read"],
)
async def test_silent_server_times_out(timeout: aiohttp.ClientTimeout) -> None:
    """A server that says nothing raises within the deadline, as ambiguous for a write."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(say_nothing) as base, transport_to(base) as transport:
        with pytest.raises(GatherTimeoutError) as caught:
            await exchange(transport, "POST", timeout=timeout)
    assert caught.value.maybe_processed is True


async def test_outer_timeout_is_not_ours() -> None:
    """A caller's own `asyncio.timeout` raises its own TimeoutError, not GatherTimeoutError."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(say_nothing) as base, transport_to(base) as transport:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await exchange(transport)
    assert not isinstance(caught.value, GatherTimeoutError)


async def test_requests_beyond_the_pool_wait_for_room() -> None:
    """At most 100 connections are open at once, and the rest are served after them."""
    release = asyncio.Event()
    opened = 0

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while True:
            await read_head(reader)
            await release.wait()
            writer.write(OK)
            await writer.drain()

    async with serving(hold) as base, transport_to(base) as transport:
        sendings = [fresh() for _ in range(130)]
        tasks = [asyncio.create_task(exchange(transport, sending=each)) for each in sendings]
        for _ in range(400):
            await asyncio.sleep(0)
        assert sum(each.was_sent for each in sendings) == 100
        release.set()
        answers = await asyncio.gather(*tasks)
    assert [answer.status for answer in answers] == [200] * 130
    assert opened == 100


async def test_redirect_is_not_followed() -> None:
    """A redirect is given back as it is: the key never travels to another place."""
    heads: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with serving(redirect) as base, transport_to(base) as transport:
        assert (await exchange(transport)).status == 302
    assert len(heads) == 1


async def test_cookies_are_not_kept() -> None:
    """A cookie that the server sets doesn't come back."""
    heads: list[bytes] = []

    async def set_cookie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await read_head(reader))
            writer.write(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b\r\n\r\n"))
            await writer.drain()

    async with serving(set_cookie) as base, transport_to(base) as transport:
        await exchange(transport)
        await exchange(transport)
    assert b"cookie" not in heads[1].lower()


async def test_closed_transport_says_so() -> None:
    """Use after closing is a clear error, and closing twice is harmless."""
    async with serving(answer_all) as base, transport_to(base) as transport:
        await exchange(transport)
        await transport.aclose()
        with pytest.raises(ClientClosedError):
            await exchange(transport)


async def test_borrowed_session_stays_open_and_gets_its_traces_back() -> None:
    """A lent session is not closed, and our trace is taken off it again."""
    async with serving(answer_all) as base, aiohttp.ClientSession() as session:
        async with transport_to(base, borrowed=session) as transport:
            sending = fresh()
            await exchange(transport, sending=sending)
            assert sending.sends == 1
        assert not session.closed
        assert not session.trace_configs


async def test_closed_borrowed_session_says_so() -> None:
    """A lent session that its owner closed is a clear error."""
    async with serving(answer_all) as base:
        async with aiohttp.ClientSession() as session:
            pass
        async with transport_to(base, borrowed=session) as transport:
            with pytest.raises(ClientClosedError, match="lent"):
                await exchange(transport)


async def test_own_traces_of_the_caller_are_used() -> None:
    """A trace that the caller passes sees the requests."""
    started: list[str] = []

    async def note(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        started.append(params.method)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    async with serving(answer_all) as base, transport_to(base, trace_configs=[trace]) as transport:
        await exchange(transport)
    assert started == ["GET"]


def test_one_transport_serves_loop_after_loop() -> None:
    """A transport that outlives its loop opens a new session in the next, and leaks nothing."""
    transport: Transport | None = None

    async def once() -> int:
        nonlocal transport
        async with serving(answer_all) as base:
            if transport is None:
                transport = Transport(base=base)
            else:
                transport._base = base
            return (await exchange(transport)).status

    assert [asyncio.run(once()) for _ in range(3)] == [200, 200, 200]


async def test_loops_at_the_same_time_have_sessions_of_their_own() -> None:
    """Several running loops use one transport; closing it in one closes all sessions."""
    async with serving(answer_all) as base, transport_to(base) as transport:
        sessions: list[Any] = []
        is_closed = threading.Event()

        async def there() -> tuple[int, bool]:
            status = (await exchange(transport)).status
            session = transport._sessions.here().session
            assert session is not None
            sessions.append(session)
            while not is_closed.is_set():  # noqa: ASYNC110 - it is set in another loop
                await asyncio.sleep(0)
            with pytest.raises(ClientClosedError):
                await exchange(transport)
            return status, session.closed

        threads = [asyncio.to_thread(asyncio.run, there()) for _ in range(3)]
        others = asyncio.gather(*threads)
        assert (await exchange(transport)).status == 200
        while len(sessions) < 3:  # noqa: ASYNC110 - nothing announces it here
            await asyncio.sleep(0)
        here = transport._sessions.here().session
        assert here is not None
        assert len({id(each) for each in (here, *sessions)}) == 4
        await transport.aclose()
        is_closed.set()
        assert await others == [(200, True)] * 3
        assert here.closed


async def test_a_lent_session_stays_in_its_loop() -> None:
    """What was lent belongs to one loop; another gets an error that says so."""
    async with serving(answer_all) as base, aiohttp.ClientSession() as lent:
        transport = Transport(base=base, borrowed=lent)
        await exchange(transport)

        async def there() -> None:
            await exchange(transport)

        with pytest.raises(ClientClosedError, match="lent session"):
            await asyncio.to_thread(asyncio.run, there())
        await transport.aclose()


async def test_one_trace_counts_for_all_clients_of_a_lent_session() -> None:
    """However many clients borrow a session, it has one trace, until the last one closes."""
    async with serving(answer_all) as base, aiohttp.ClientSession() as lent:
        transports = [Transport(base=base, borrowed=lent) for _ in range(50)]
        states = []
        for each in transports:
            state = SendState(lambda: None)
            await each.exchange(
                "GET", "/", headers={}, body=None, timeout=client_timeout(9), state=state
            )
            states.append(state.sends)
        assert states == [1] * 50
        assert len(lent.trace_configs) == 1
        for each in transports:
            assert len(lent.trace_configs) == 1
            await each.aclose()
            await each.aclose()
        assert lent.trace_configs == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_sessions_of_its_own() -> None:
    """A child never touches its parent's connections, and the parent's go on working."""
    program = """
        import asyncio, os
        from gather_async import GatherClient
        from gather_async.testing import FakeGather

        async def main():
            async with FakeGather() as fake:
                gather = GatherClient(fake.api_key, base_url=fake.base_url)
                await gather.teams.list()
                loop = asyncio.get_running_loop()
                child = await loop.run_in_executor(None, fork, gather)
                await gather.teams.list()
                await gather.aclose()
                return child

        def fork(gather):
            child = os.fork()
            if child == 0:
                async def once():
                    await gather.teams.list()
                    await gather.aclose()
                try:
                    asyncio.run(once())
                finally:
                    os._exit(0 if not gather._session.transport._sessions.all() == [] else 1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        print(asyncio.run(main()))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=25,
    )
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.parametrize("timeout", [0, -1.0, True, "5", float("nan"), float("inf")])
def test_senseless_timeout_is_refused(timeout: object) -> None:
    """A timeout that is no positive, finite number of seconds is refused at once."""
    with pytest.raises(ConfigurationError):
        client_timeout(timeout)  # type: ignore[arg-type]  # the point of the test


def test_aiohttp_timeout_is_taken_as_it_is() -> None:
    """A ClientTimeout goes to aiohttp unchanged, and None means no limit."""
    own = aiohttp.ClientTimeout(total=9, sock_connect=2, sock_read=3)
    assert client_timeout(own) is own
    assert client_timeout(None).total is None


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> dict[float, Callable[[], None]]:
    """Give what rings each shared deadline, by its time of the loop; no time passes."""
    loop, bells = asyncio.get_event_loop(), dict[float, Callable[[], None]]()
    call_at = loop.call_at

    def keep(when: float, callback: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if isinstance(getattr(callback, "__self__", None), Deadlines):
            bells[when] = lambda: callback(*args)
            when += 3600.0
        return call_at(when, callback, *args, **options)

    monkeypatch.setattr(loop, "call_at", keep)
    return bells


async def _hold_back(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Answer nothing."""
    await reader.read()


async def test_requests_of_one_second_share_a_deadline(
    rung: dict[float, Callable[[], None]],
) -> None:
    """A whole second's requests end together as timeouts; one with more time goes on."""
    sent = asyncio.Event()

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        sent.set()
        await reader.read()

    async with serving(answer_late) as base, transport_to(base) as transport:
        short, long = client_timeout(30.0), client_timeout(3000.0)
        ended = [asyncio.create_task(exchange(transport, "POST", timeout=short)) for _ in "ab"]
        open_ended = asyncio.create_task(exchange(transport, timeout=long))
        await sent.wait()
        first, last = min(rung), max(rung)
        for when in sorted(rung):
            if when < last:
                rung[when]()
        for task in ended:
            with pytest.raises(GatherTimeoutError, match=r"timeout: 30\.0 s") as caught:
                await task
            assert task.cancelling() == 0
            assert caught.value.__cause__ is None
        assert not open_ended.done()
        assert last - first > 2000.0
        open_ended.cancel()
        with pytest.raises(asyncio.CancelledError):
            await open_ended


async def test_deadline_of_a_finished_request_ends_nothing(
    rung: dict[float, Callable[[], None]],
) -> None:
    """A task whose request was answered in time isn't cancelled when its deadline comes."""
    async with serving(answer_all) as base, transport_to(base) as transport:
        await exchange(transport, timeout=client_timeout(30.0))
        assert rung
        for ring in rung.values():
            ring()
        answer = await exchange(transport, timeout=client_timeout(30.0))
    assert answer.status == 200


async def test_deadline_that_becomes_another_error_is_taken_back(
    rung: dict[float, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that answers the deadline with an error of its own leaves no cancellation."""

    async def swallow(*_: object, **__: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise aiohttp.ClientConnectionError("gone") from None

    monkeypatch.setattr(aiohttp.ClientSession, "request", swallow)
    async with transport_to("http://127.0.0.1:1") as transport:
        task = asyncio.create_task(exchange(transport, timeout=client_timeout(30.0)))
        await asyncio.sleep(0)
        assert rung
        for ring in rung.values():
            ring()
        with pytest.raises(GatherConnectionError):
            await task
        assert task.cancelling() == 0


async def test_cancellation_at_the_deadline_stays_one(
    rung: dict[float, Callable[[], None]],
) -> None:
    """A caller who cancels in the step in which the deadline comes is obeyed."""
    async with serving(_hold_back) as base, transport_to(base) as transport:
        task = asyncio.create_task(exchange(transport, timeout=client_timeout(30.0)))
        await asyncio.sleep(0)
        assert rung
        task.cancel()
        for ring in rung.values():
            ring()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_small_body_above_the_limit_is_refused() -> None:
    """A body that came with its headers is held to ``max_response``, as any other."""
    async with serving(answer_all) as base, transport_to(base, max_response=1) as transport:
        with pytest.raises(ResponseDecodeError, match="larger than max_response"):
            await exchange(transport)
