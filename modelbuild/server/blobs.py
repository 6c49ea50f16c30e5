"""Uploading blobs: bytes go to a staged file while they are hashed, and get their name only when it is theirs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from aiohttp import web

from modelbuild.digest import Digest, parse_digest
from modelbuild.errors import InputError, SpaceError
from modelbuild.server.answers import Refusal, begin, empty_answer
from modelbuild.server.bodies import drain_body, iterate_body
from modelbuild.server.settings import Limits
from modelbuild.store.blobs import BlobStore
from modelbuild.store.staged import StagedFile, free_space

#: So much is gathered before a thread hashes and writes it: large enough to make the hand-over cheap.
_BATCH_BYTES = 1 << 20
#: Free space is looked at again after so many bytes of a body of unknown length.
_SPACE_CHECK_BYTES = 64 << 20


class BlobRoutes:
    """The handlers of /api/blobs/:digest."""

    def __init__(self, store: BlobStore, limits: Limits, count: Callable[[int], None]) -> None:
        """count: gets the size of every new blob in bytes."""
        self._store = store
        self._limits = limits
        self._count = count

    async def head(self, request: web.BaseRequest, text: str) -> web.StreamResponse:
        """200 when the blob is there, else 404."""
        del request
        digest = _parse(text)
        found = await asyncio.to_thread(self._store.size_of, digest)
        if found is None:
            raise Refusal(404, "blob not found")
        return empty_answer()

    async def post(self, request: web.BaseRequest, text: str) -> web.StreamResponse:
        """Take a blob: 201 when it is new, 200 without looking at the body when it is there already."""
        digest = _parse(text)
        if await asyncio.to_thread(self._is_known, digest):
            return await self._answer_early(request)
        self._check_size(request.content_length)
        with self._store.stage() as staged:
            receiver = _Receiver(staged)
            await self._receive(request, receiver)
            found = receiver.digest
            if found != digest:
                raise Refusal(400, f'digest mismatch, expected "{text}", got "{found}"')
            await self._publish(staged, digest)
        self._count(receiver.size_bytes)
        return empty_answer(201)

    def _is_known(self, digest: Digest) -> bool:
        if self._store.size_of(digest) is None:
            return False
        self._store.refresh(digest)
        return True

    async def _answer_early(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer at once; the rest of the body is not worth reading, so the connection ends with the answer."""
        response = empty_answer()
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

    async def _receive(self, request: web.BaseRequest, receiver: _Receiver) -> None:
        """Hand the body to a thread batch by batch; one batch is written while the next one arrives."""
        loop = asyncio.get_running_loop()
        filling, emptying = _Batch(), _Batch()
        writing: asyncio.Future[None] = loop.create_future()
        writing.set_result(None)
        try:
            async for part in iterate_body(request, self._limits):
                rest = filling.add(memoryview(part))
                while rest:
                    await settle(writing)
                    self._check_growth(receiver.size_bytes + filling.size_bytes)
                    filling, emptying = emptying, filling
                    writing = loop.run_in_executor(None, receiver.take, emptying)
                    rest = filling.add(rest)
            await settle(writing)
            await settle(loop.run_in_executor(None, receiver.take, filling))
        except SpaceError as error:
            raise _no_space() from error
        finally:
            await settle(writing)  # the file must not be closed under the thread

    async def _publish(self, staged: StagedFile, digest: Digest) -> None:
        try:
            await settle(asyncio.get_running_loop().run_in_executor(None, staged.publish, digest))
        except SpaceError as error:
            raise _no_space() from error

    def _check_growth(self, total_bytes: int) -> None:
        if total_bytes > self._limits.blob_bytes:
            raise Refusal(413, f"a blob has at most {self._limits.blob_bytes} bytes", close=True)
        if total_bytes % _SPACE_CHECK_BYTES == 0 and free_space(self._store.root) < self._limits.spare_disk_bytes:
            raise _no_space()


class _Batch:
    """A part of a body. Bytes are copied into memory that is used again and again: large objects that live until a
    thread has written them would cost a page fault for every 4 KiB, which is more than the copy.
    """

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(_BATCH_BYTES))
        self.size_bytes = 0

    def add(self, part: memoryview) -> memoryview:
        """Take as much as there is room for; returns the rest."""
        taken = part[: _BATCH_BYTES - self.size_bytes]
        self._memory[self.size_bytes : self.size_bytes + len(taken)] = taken
        self.size_bytes += len(taken)
        return part[len(taken) :]

    def empty(self) -> memoryview:
        """What was added; good until the next `add`."""
        data = self._memory[: self.size_bytes]
        self.size_bytes = 0
        return data


class _Receiver:
    """Writes and hashes what arrives; used by one thread at a time."""

    def __init__(self, staged: StagedFile) -> None:
        self._staged = staged
        self._hasher = hashlib.sha256()
        self.size_bytes = 0

    def take(self, batch: _Batch) -> None:
        """Add the bytes of a batch, and empty it."""
        data = batch.empty()
        self._hasher.update(data)
        self._staged.append(data)
        self.size_bytes += len(data)

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


def _no_space() -> Refusal:
    return Refusal(507, "not enough disk space for this blob", close=True)
