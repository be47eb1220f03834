"""The listening socket of FakeGather, opened and closed without leaving anything behind."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import web

__all__ = ["HOST", "LoopbackServer"]

HOST = "127.0.0.1"
_GRACE = 0.05  # real seconds for handlers to notice that their connection is gone
_BACKLOG = 1024  # hundreds of clients may connect in one tick

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class LoopbackServer:
    """An HTTP server on 127.0.0.1 in the running loop."""

    def __init__(self, server: asyncio.Server, protocols: web.Server) -> None:
        self._server = server
        self._protocols = protocols

    @classmethod
    async def open(cls, handler: Handler, port: int) -> "LoopbackServer":
        """Listen on a port; 0 takes any free one.

        Raises:
            OSError: The port is taken.
        """
        protocols = web.Server(handler, access_log=None)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocols, HOST, port, backlog=_BACKLOG)
        return cls(server, protocols)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def aclose(self) -> None:
        """Stop listening and cut every connection."""
        await self._stop_accepting()
        self._server.close()
        for protocol in self._protocols.connections:
            if protocol.transport is not None:
                protocol.transport.abort()
        await self._protocols.shutdown(_GRACE)
        await self._server.wait_closed()

    async def _stop_accepting(self) -> None:
        """Let connections that are being accepted become whole.

        asyncio leaks the socket of a connection whose acceptance has begun when
        its server closes.
        """
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # Windows' default loop
            for listening in self._server.sockets:
                loop.remove_reader(listening.fileno())
        for _ in range(3):  # the callback, the task that it starts, the protocol's start
            await asyncio.sleep(0)
