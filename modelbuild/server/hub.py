"""Messages to everybody who watches, over server-sent events: numbered, kept for a while, never waiting for anybody."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from modelbuild.records import record
from modelbuild.server.answers import begin

#: So many messages, and so much text of them, can be asked for again with Last-Event-ID.
_KEPT, _KEPT_BYTES = 1000, 16 << 20
#: No server sends more messages than such numbers count.
_DIGITS = 18
#: A comment this often keeps connections through proxies alive and finds those that are gone.
_KEEPALIVE_S = 15.0
_STREAM_TYPE = "text/event-stream"


@record
class Message:
    """One message; data is one line of JSON."""

    number: int
    name: str
    data: str

    def encode(self) -> bytes:
        """The message as it goes over the wire."""
        return f"id: {self.number}\nevent: {self.name}\ndata: {self.data}\n\n".encode()


class Hub:
    """Keeps the last messages and lets any number of watchers follow them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kept: deque[Message] = deque()
        self._kept_bytes = 0
        self._changed = asyncio.Event()
        self._is_closed = False
        self.watchers = 0

    def publish(self, name: str, data: Mapping[str, object]) -> None:
        """Send a message to everybody."""
        text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
        self._kept.append(Message(next(self._numbers), name, text))
        self._kept_bytes += len(text)
        while len(self._kept) > 1 and (len(self._kept) > _KEPT or self._kept_bytes > _KEPT_BYTES):
            self._kept_bytes -= len(self._kept.popleft().data)
        self._wake()

    def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        self._wake()

    async def follow(self, after: int | None = None) -> AsyncIterator[Message | None]:
        """New messages, or those after a number; None from time to time when there is nothing to say.

        A number that was not given yet is one of an earlier server: all messages are new to whoever knows that.
        """
        newest = self._kept[-1].number if self._kept else 0
        sent = newest if after is None else after if after <= newest else 0
        self.watchers += 1
        try:
            while True:
                message = self._next(sent)
                if message is not None:
                    sent = message.number
                    yield message
                    continue
                if self._is_closed:
                    return
                try:
                    await asyncio.wait_for(self._changed.wait(), _KEEPALIVE_S)
                except TimeoutError:
                    yield None
        finally:
            self.watchers -= 1

    async def stream(self, request: web.BaseRequest, parameter: str) -> web.StreamResponse:
        """The handler of /events."""
        del parameter
        response = web.StreamResponse(headers={"Content-Type": _STREAM_TYPE, "Cache-Control": "no-store"})
        await begin(request, response)
        await response.write(b": modelbuild\n\n")
        async for message in self.follow(_number(request.headers.get("Last-Event-ID", ""))):
            await response.write(b": \n\n" if message is None else message.encode())
        await response.write_eof()
        return response

    def _next(self, number: int) -> Message | None:
        """The first message after a number that is still kept; one at a time, so that nobody slow keeps others."""
        if not self._kept or self._kept[-1].number <= number:
            return None
        return self._kept[max(0, number + 1 - self._kept[0].number)]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _number(text: str) -> int | None:
    """The number of a message; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None
