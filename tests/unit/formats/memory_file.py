"""Files that live in memory: rewriting one thousands of times does not wait for a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MemoryFile:
    """A regular file without a name in any directory; `path` opens it like any other."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("test")
        self.path = Path(f"/proc/self/fd/{self._fd}")

    def write(self, data: bytes) -> None:
        """Replace the content."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._fd)


@contextmanager
def memory_file() -> Iterator[MemoryFile]:
    """A file in memory for the length of a block."""
    file = MemoryFile()
    try:
        yield file
    finally:
        file.close()
