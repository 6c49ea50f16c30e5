"""Uploading blobs: bytes go to a staged file while they are hashed, and get their name only when it is theirs.

A request with `Upload-Offset` leaves what has arrived when it is cut, and another one goes on from there. The header
fields are those of draft-ietf-httpbis-resumable-upload; the place of the upload is the URL of the blob.
"""

from __future__ import annotations

import asyncio
import hashlib
import resource
import time
from collections.abc import Callable

from aiohttp import web

from modelbuild.digest import Digest, parse_digest
from modelbuild.errors import InputError, SpaceError
from modelbuild.server.answers import Refusal, begin, empty_answer, refuse
from modelbuild.server.bodies import drain_body, iterate_body
from modelbuild.server.settings import Limits
from modelbuild.store.blobs import BlobStore
from modelbuild.store.staged import StagedFile, free_space

#: A write takes tenths of a millisecond while it goes to memory; one that takes longer waits for the disk.
_SLOW_WRITE_S = 0.005
#: So many parts after a slow write are taken in a thread.
_SLOW_PARTS = 16
_OFFSET, _COMPLETE = "Upload-Offset", "Upload-Complete"
_RESUMED_BYTES = 1 << 20
#: Free space is looked at again after so many bytes of a body of unknown length.
_SPACE_CHECK_BYTES = 64 << 20

#: Where the hexadecimal digits of a digest begin.
_HEX = len("sha256:")


class BlobRoutes:
    """The handlers of /api/blobs/:digest."""

    def __init__(
        self, store: BlobStore, limits: Limits, count: Callable[[int], None], *, keep_all: bool = False
    ) -> None:
        """count: gets the size of every new blob in bytes. keep_all: keep what has another digest under its own."""
        self._store = store
        self._limits = limits
        self._count = count
        self._keep_all = keep_all

    async def head(self, request: web.BaseRequest, text: str) -> web.StreamResponse:
        """200 when the blob is there, else 404."""
        del request
        digest = _parse(text)
        if not await asyncio.to_thread(self._is_there, digest, text):
            there_bytes = await asyncio.to_thread(self._store.arrived_bytes, digest)
            headers = {_OFFSET: str(there_bytes), _COMPLETE: "?0"} if there_bytes else {}
            raise Refusal(404, "blob not found", headers=headers)
        return empty_answer()

    async def post(self, request: web.BaseRequest, text: str) -> web.StreamResponse:
        """Take a blob: 201 when it is new, 200 without looking at the body when it is there already."""
        digest = _parse(text)
        if await asyncio.to_thread(self._is_known, digest, text):
            return await self._answer_early(request, empty_answer())
        offset = _offset_of(request)
        self._check_size(request.content_length)
        if offset is not None:
            return await self._continue(request, digest, text, offset)
        with self._store.stage() as staged:
            receiver = Receiver(staged)
            await self._receive(request, receiver)
            return await self._store_under(digest, text, staged, receiver)

    async def _continue(self, request: web.BaseRequest, digest: Digest, text: str, offset: int) -> web.StreamResponse:
        """Take the rest of a blob, or a part of it when the client says that more will come."""
        try:
            with self._store.stage_arriving(digest) as staged:
                if not offset:
                    staged.restart()
                if offset != staged.appended_bytes:
                    return await self._answer_early(request, refuse(_wrong_offset(staged.appended_bytes)))
                receiver = Receiver(staged)
                await settle(asyncio.get_running_loop().run_in_executor(None, receiver.resume, offset))
                try:
                    await self._receive(request, receiver)
                except Refusal as refusal:
                    if refusal.status in (413, 507):
                        staged.discard()
                    raise
                if request.headers.get(_COMPLETE) == "?0":
                    response = empty_answer(202)
                    response.headers.update({_OFFSET: str(receiver.size_bytes), _COMPLETE: "?0"})
                    return response
                try:
                    return await self._store_under(digest, text, staged, receiver)
                finally:
                    staged.discard()
        except BlockingIOError as error:
            raise Refusal(409, "this blob is on its way already; try again later", close=True) from error

    async def _store_under(
        self, digest: Digest, text: str, staged: StagedFile, receiver: Receiver
    ) -> web.StreamResponse:
        """Publish what was received if it is what the URL says; `text` is the digest as the client wrote it."""
        found = receiver.digest
        if found != text:  # in one spelling, as in Ollama
            if self._keep_all:
                await self._publish(staged, found)
            raise Refusal(400, f'digest mismatch, expected "{text}", got "{found}"')
        await self._publish(staged, digest)
        self._count(receiver.size_bytes)
        return empty_answer(201)

    def _is_there(self, digest: Digest, text: str) -> bool:
        """Is the blob stored? Upper case names none, since Ollama looks for a file of that very name."""
        return text[_HEX:] == digest[_HEX:] and self._store.size_of(digest) is not None

    def _is_known(self, digest: Digest, text: str) -> bool:
        if not self._is_there(digest, text):
            return False
        self._store.refresh(digest)
        return True

    async def _answer_early(self, request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
        """Answer at once; the rest of the body is not worth reading, so the connection ends with the answer."""
        if request.can_read_body:
            response.force_close()
            await begin(request, response)
            await response.write_eof()
            await drain_body(request, self._limits)
        return response

    def _check_size(self, size_bytes: int | None) -> None:
        if size_bytes is not None and size_bytes > self._limits.blob_bytes:
            raise Refusal(413, f"a blob has at most {self._limits.blob_bytes} bytes", close=True)
        needed_bytes = (size_bytes or 0) + self._limits.spare_disk_bytes
        if needed_bytes > free_space(self._store.root):
            raise _no_space()

    async def _receive(self, request: web.BaseRequest, receiver: Receiver) -> None:
        """Hash and write the body part by part, in a thread where the disk makes us wait."""
        loop = asyncio.get_running_loop()
        try:
            async for part in iterate_body(request, self._limits):
                if receiver.is_slow:
                    await settle(loop.run_in_executor(None, receiver.take, part))
                else:
                    receiver.take(part)
                self._check_growth(receiver)
        except SpaceError as error:
            raise _no_space() from error

    async def _publish(self, staged: StagedFile, digest: Digest) -> None:
        try:
            await settle(asyncio.get_running_loop().run_in_executor(None, staged.publish, digest))
        except SpaceError as error:
            raise _no_space() from error

    def _check_growth(self, receiver: Receiver) -> None:
        if receiver.size_bytes > self._limits.blob_bytes:
            raise Refusal(413, f"a blob has at most {self._limits.blob_bytes} bytes", close=True)
        if receiver.size_bytes < receiver.checked_bytes + _SPACE_CHECK_BYTES:
            return
        receiver.checked_bytes = receiver.size_bytes
        if free_space(self._store.root) < self._limits.spare_disk_bytes:
            raise _no_space()


def count_waits() -> int:
    """How often this thread has waited for something, such as a disk; not how often others had the processor.

    Systems that count for whole processes only count the waits of other threads as well.
    """
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw


class Receiver:
    """Writes and hashes what arrives; used by one thread at a time.

    checked_bytes: how much had been taken when free space was last looked at.
    """

    def __init__(
        self, staged: StagedFile, clock: Callable[[], float] = time.perf_counter, waits: Callable[[], int] = count_waits
    ) -> None:
        self._staged = staged
        self._clock = clock
        self._waits = waits
        self._hasher = hashlib.sha256()
        self._slow_parts = 0
        self.size_bytes = 0
        self.checked_bytes = 0

    @property
    def is_slow(self) -> bool:
        """Would taking a part hold up other requests? So it is for a while after a write that waited long."""
        return self._slow_parts > 0

    def take(self, part: bytes) -> None:
        """Add the next bytes."""
        self._hasher.update(part)
        started_s, waits = self._clock(), self._waits()
        self._staged.append(part)
        self.size_bytes += len(part)
        is_late = self._clock() - started_s > _SLOW_WRITE_S and self._waits() > waits
        self._slow_parts = _SLOW_PARTS if is_late else max(0, self._slow_parts - 1)

    def resume(self, size_bytes: int) -> None:
        """Take what stands in the file already as the first bytes."""
        while self.size_bytes < size_bytes:
            part = self._staged.read_at(self.size_bytes, min(_RESUMED_BYTES, size_bytes - self.size_bytes))
            if not part:
                return
            self._hasher.update(part)
            self.size_bytes += len(part)
        self.checked_bytes = self.size_bytes

    @property
    def digest(self) -> Digest:
        """Of all that was taken."""
        return Digest("sha256:" + self._hasher.hexdigest())


async def settle(work: asyncio.Future[None]) -> None:
    """Wait for work in a thread to its end even when the request is cancelled meanwhile: the thread cannot be."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    work.result()


def _parse(text: str) -> Digest:
    try:
        return parse_digest(text)
    except InputError as error:
        raise Refusal(400, "invalid digest format") from error


def _offset_of(request: web.BaseRequest) -> int | None:
    """Where the body belongs in the blob; None from a client that does not want to continue uploads."""
    text = request.headers.get(_OFFSET)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refusal(400, f"{_OFFSET} is no number of bytes", close=True)
    return int(text)


def _wrong_offset(there_bytes: int) -> Refusal:
    text = f"the upload stands at byte {there_bytes}"
    return Refusal(409, text, headers={_OFFSET: str(there_bytes), _COMPLETE: "?0"})


def _no_space() -> Refusal:
    return Refusal(507, "not enough disk space for this blob", close=True)
