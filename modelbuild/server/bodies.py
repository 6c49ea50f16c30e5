"""Reading request bodies within their limits: never more than a bound in memory, never longer than a bound idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestPayloadError

from modelbuild.errors import InputError
from modelbuild.recipe.go_binding import Record, bind_request
from modelbuild.server.answers import Refusal
from modelbuild.server.settings import Limits

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def read_object(request: web.BaseRequest, kind: Record, limits: Limits) -> dict[str, object]:
    """The JSON object of a request, bound as Ollama binds it; Refusal 400 with Ollama's text, 413 when too large."""
    try:
        return bind_request(await read_body(request, limits), kind)
    except InputError as error:
        raise Refusal(400, error.message) from error


async def read_body(request: web.BaseRequest, limits: Limits) -> bytes:
    """A whole small body; Refusal 413 when it is larger than `limits.json_bytes`."""
    size = request.content_length
    if size is not None and size > limits.json_bytes:
        raise _too_large(limits.json_bytes)
    body = bytearray()  # a list of parts would be many times as large when each part is a byte
    async for part in iterate_body(request, limits):
        body += part
        if len(body) > limits.json_bytes:
            raise _too_large(limits.json_bytes)
    return bytes(body)


async def iterate_body(request: web.BaseRequest, limits: Limits) -> AsyncIterator[bytes]:
    """The parts of a body as they arrive; Refusal 408 after too long a pause, 400 for a body that is cut or broken."""
    await invite_body(request)
    content = request.content
    with _Patience(content, limits.body_idle_timeout_s) as patience:
        while True:
            try:
                patience.begin()
                part, _ = await content.readchunk()  # unlike readany, joins nothing
                patience.end()
            except TimeoutError as error:
                raise Refusal(408, "the body stopped arriving", close=True) from error
            except RequestPayloadError as error:
                raise Refusal(400, "the body is not what its headers say", close=True) from error
            if part:
                yield part
            elif content.at_eof():
                return


class _Patience:
    """Ends the wait for a part of a body after too long a pause, with TimeoutError.

    One timer looks after a whole body: to start and stop one for each part takes a tenth of an upload's time.
    """

    def __init__(self, content: StreamReader, limit_s: float) -> None:
        self._content = content
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._since_s: float | None = None

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._limit_s, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def begin(self) -> None:
        """From now on we wait."""
        self._since_s = self._loop.time()

    def end(self) -> None:
        """The part is there; what is done with it is no pause of the client."""
        self._since_s = None

    def _look(self) -> None:
        now_s = self._loop.time()
        ends_s = (now_s if self._since_s is None else self._since_s) + self._limit_s
        if ends_s <= now_s:
            self._content.set_exception(TimeoutError())
        else:
            self._timer = self._loop.call_at(ends_s, self._look)


async def invite_body(request: web.BaseRequest) -> None:
    """Tell a client that waits for it (`Expect: 100-continue`) to send its body."""
    if request.headers.get("Expect", "").lower() == "100-continue" and not request.content.at_eof():
        await request.writer.write(_CONTINUE)


async def drain_body(request: web.BaseRequest, limits: Limits) -> None:
    """Read a little of a body that is not needed, so that the client gets to see the answer before its write fails."""
    if request.headers.get("Expect"):
        return  # it has not been invited, so it does not come
    drained = 0
    try:
        async with asyncio.timeout(1.0):
            while drained < limits.drained_bytes and (part := await request.content.readany()):
                drained += len(part)
    except (TimeoutError, RequestPayloadError):
        return


def _too_large(limit_bytes: int) -> Refusal:
    return Refusal(413, f"the body is larger than {limit_bytes} bytes", close=True)
