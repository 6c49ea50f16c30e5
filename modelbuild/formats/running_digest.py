"""Hashing of a stream beside the work that makes it."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from modelbuild.digest import Digest

#: Pieces that wait for the hashing thread: enough that it never waits for the next one, few enough to be no memory.
_WAITING_PIECES = 2


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
