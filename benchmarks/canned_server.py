"""A server that answers canned bytes, in a process of its own, so that its CPU isn't counted.

It speaks just enough HTTP/1.1 for requests with a Content-Length, one after another.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from itertools import count
from typing import Any

__all__ = ["CANDIDATE", "NEW_CANDIDATE", "QUESTION", "QUESTION_ID", "canned_server"]

QUESTION_ID = "7b0c3c2e-6f0e-4a8e-9d0c-0d9f5b1c2a11"
_META = {"requestId": "req_0123456789", "timestamp": "2025-06-01T12:00:00.000Z"}
QUESTION: dict[str, Any] = {
    "id": QUESTION_ID,
    "title": "Tell me about yourself",
    "audioURL": "https://example.com/audio/question1.mp3",
    "description": None,
    "narratorId": "4f7f1f0a-6f3b-4b5e-8c62-0d7a3b8e1c22",
    "questionScript": "Tell me about yourself and your background.",
    "organizationId": "0e8f4a52-7c39-4a0a-b5e7-6d8f1a2b3c33",
    "teamId": "1a2b3c4d-5e6f-4a1b-8c2d-3e4f5a6b7c44",
    "createdById": "2b3c4d5e-6f7a-4b2c-9d3e-4f5a6b7c8d55",
    "createdAt": "2025-06-01T12:00:00.000Z",
    "updatedAt": "2025-06-01T12:00:03.125Z",
    "archivedAt": None,
    "transcriptionStatus": "complete",
}
NEW_CANDIDATE = {
    "firstName": "John",
    "lastName": "Doe",
    "email": "john.doe@example.com",
    "phone": "+1234567890",
    "externalId": "ats-4711",
}
CANDIDATE: dict[str, Any] = {
    **NEW_CANDIDATE,
    "id": "3c4d5e6f-7a8b-4c3d-8e4f-5a6b7c8d9e66",
    "timezone": None,
    "smsOptIn": False,
    "resumeUrl": None,
    "linkedInURL": None,
    "source": "api",
    "createdAt": "2025-06-01T12:00:00.000Z",
    "updatedAt": "2025-06-01T12:00:00.000Z",
}


_DATE = "{date}"  # as every gateway sends it
_REMAINING = "{remaining}"
_LIMIT = 1_000_000


def _response(status: str, data: object) -> bytes:
    body = json.dumps({"data": data, "meta": _META}).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nDate: {_DATE}\r\nX-RateLimit-Limit: {_LIMIT}\r\n"
        f"X-RateLimit-Remaining: {_REMAINING}\r\nX-RateLimit-Reset: 4102444800\r\n\r\n"
    )
    return head.encode() + body


_CREATED = _response("201 Created", CANDIDATE)
_READ = _response("200 OK", {"question": QUESTION})


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request of one connection until the client closes it."""
    numbers = count(1)  # each client has one connection, and a quota of its own
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            _, found, rest = head.lower().partition(b"content-length: ")
            if found:
                await reader.readexactly(int(rest.partition(b"\r\n")[0]))
            response = _CREATED
            if not head.startswith(b"POST"):
                asked_for = head.partition(b" HTTP/")[0].rpartition(b"/")[2]
                response = _READ.replace(QUESTION_ID.encode(), asked_for)
            remaining = f"{_LIMIT - next(numbers) % _LIMIT}"
            response = response.replace(_REMAINING.encode(), remaining.encode(), 1)
            writer.write(response.replace(_DATE.encode(), formatdate(usegmt=True).encode(), 1))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main() -> None:
    """Print the port, and serve until standard input closes, which it does if the parent dies."""
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


@contextmanager
def canned_server() -> Iterator[str]:
    """Yield the base URL of a server in another process; it ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.canned_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(_main())
