"""Uploading blobs: bytes go to a staged file while they are hashed, and get their name only when it is theirs."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

from aiohttp import web

from modelbuild.digest import Digest, parse_digest
from modelbuild.errors import InputError, SpaceError
from modelbuild.server.answers import Refusal, begin, empty_answer
from modelbuild.server.bodies import drain_body, iterate_body
from modelbuild.server.settings import Limits
from modelbuild.store.blobs import BlobStore
from modelbuild.store.staged import StagedFile, free_space

#: A write takes tenths of a millisecond while it goes to memory; one that takes longer waits for the disk.
_SLOW_WRITE_S = 0.005
#: So many parts after a slow write are taken in a thread.
_SLOW_PARTS = 64
#: Free space is looked at again after so many bytes of a body of unknown length.
_SPACE_CHECK_BYTES = 64 << 20


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
            receiver = Receiver(staged)
            await self._receive(request, receiver)
            found = receiver.digest
            if found != digest:
                if self._keep_all:
                    await self._publish(staged, found)
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


class Receiver:
    """Writes and hashes what arrives; used by one thread at a time.

    checked_bytes: how much had been taken when free space was last looked at.
    """

    def __init__(self, staged: StagedFile, clock: Callable[[], float] = time.perf_counter) -> None:
        self._staged = staged
        self._clock = clock
        self._hasher = hashlib.sha256()
        self._slow_parts = 0
        self.size_bytes = 0
        self.checked_bytes = 0

    @property
    def is_slow(self) -> bool:
        """Would taking a part hold up other requests? So it is for a while after a write that took long."""
        return self._slow_parts > 0

    def take(self, part: bytes) -> None:
        """Add the next bytes."""
        self._hasher.update(part)
        started_s = self._clock()
        self._staged.append(part)
        self.size_bytes += len(part)
        is_late = self._clock() - started_s > _SLOW_WRITE_S
        self._slow_parts = _SLOW_PARTS if is_late else max(0, self._slow_parts - 1)

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
