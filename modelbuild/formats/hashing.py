"""Hashing of open files in bounded memory, and of streams beside the work that makes them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from modelbuild.digest import Digest
from modelbuild.formats.files import InputFile

#: Large enough that hashing is bound by SHA-256 itself, small enough to stay in the L2 cache.
HASH_CHUNK_BYTES = 1 << 20
#: Pieces that wait for the hashing thread: enough that it never waits for the next one, few enough to be no memory.
_WAITING_PIECES = 2


def digest_of_file(
    source: InputFile,
    progress: Callable[[int], None] | None = None,
    sink: Callable[[memoryview], object] | None = None,
) -> Digest:
    """The digest of a whole open file, read once.

    progress is called with the bytes done so far; sink, when given, gets every chunk (a copy is made that way).
    The memoryview is reused, so the sink must be done with it when it returns.
    """
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(HASH_CHUNK_BYTES))
    done_bytes = 0
    while done_bytes < source.size_bytes:
        chunk = buffer[: min(HASH_CHUNK_BYTES, source.size_bytes - done_bytes)]
        source.read_into(done_bytes, chunk)
        hasher.update(chunk)
        if sink is not None:
            sink(chunk)
        done_bytes += len(chunk)
        if progress is not None:
            progress(done_bytes)
    return Digest("sha256:" + hasher.hexdigest())


class RunningDigest:
    """The digest of pieces that come one after the other, hashed by a thread beside the caller's own work.

    A piece must not change before `digest` has returned. Belongs to one thread; `close` it in any case.
    """

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, "hash")
        self._waiting: deque[Future[None]] = deque()

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next piece; waits while the thread is too far behind."""
        while len(self._waiting) >= _WAITING_PIECES:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._hasher.update, piece))

    def digest(self) -> Digest:
        """The digest of all pieces so far."""
        while self._waiting:
            self._waiting.popleft().result()
        return Digest("sha256:" + self._hasher.hexdigest())

    def close(self) -> None:
        """End the thread; pieces that it has not begun are dropped."""
        self._thread.shutdown(cancel_futures=True)
