"""One TCP connection: how many there may be, and what broken HTTP is answered with.

aiohttp parses HTTP. Its keep-alive timer also ends connections on which no complete request head arrives in time, so it
serves as the head timeout here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from modelbuild.server.answers import SERVER_NAME, Refusal, refuse
from modelbuild.server.settings import Limits

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: So many connections beyond the limit wait so long for a request, to be closed after it.
_LINGERING = 128
_LINGER_S = 1.0
#: What a connection reads ahead; with less, large uploads spend their time on stopping and going on.
_READ_BYTES = 256 << 10
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n"
    b'Retry-After: 1\r\nConnection: close\r\nContent-Length: 32\r\n\r\n{"error":"too many connections"}'
)


class Connections:
    """Makes a protocol for each connection and counts them."""

    def __init__(self, handler: Handler, limits: Limits, **options: Any) -> None:
        self._limits = limits
        self._options = options
        self._server = web.Server(cast("Any", handler), handler_cancellation=True)
        self.refused = 0
        self._lingering: set[asyncio.BaseTransport] = set()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._server.connections)

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if self.open >= self._limits.connections:
            self.refused += 1
            return _BusyProtocol(self._lingering)
        return _Connection(
            self._server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._limits.head_timeout_s,
            lingering_time=0.0,
            max_headers=self._limits.headers,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            **self._options,
        )

    async def shutdown(self, timeout_s: float) -> None:
        """Let running requests end within a time, then cut them off."""
        self._server.pre_shutdown()
        await self._server.shutdown(timeout_s)


class _BusyProtocol(asyncio.Protocol):
    """Says that there are too many connections, and closes this one.

    It waits a moment for the request: closing before that resets the connection, and the client may not see the answer.
    """

    def __init__(self, lingering: set[asyncio.BaseTransport]) -> None:
        self._lingering = lingering
        self._stream: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(_BUSY)
        if len(self._lingering) >= _LINGERING:
            stream.close()
            return
        self._lingering.add(stream)
        self._stream = stream
        self._timer = asyncio.get_running_loop().call_later(_LINGER_S, stream.close)

    def data_received(self, data: bytes) -> None:
        del data
        if self._stream is not None:
            self._stream.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._stream is not None and self._timer is not None:
            self._timer.cancel()
            self._lingering.discard(self._stream)


class _Connection(web.RequestHandler):
    """aiohttp's connection with our answers to HTTP that cannot be parsed."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a broken request (status 400) or to a defect of ours (500); closes the connection."""
        del message
        if status == 500:
            self.logger.error("error in the handler of %s %s", request.method, request.rel_url.path, exc_info=exc)
            return _closing(500, "internal error")
        if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
            return _closing(431, "the request head is too large")
        return _closing(status, "not valid HTTP")


def _closing(status: int, text: str) -> web.Response:
    response = refuse(Refusal(status, text, close=True))
    response.headers["Server"] = SERVER_NAME
    return response
