"""Who may delete blobs, and when: builds share a lock on the `blobs/` directory, whoever deletes takes it alone.

The lock lives in the kernel, so it ends with its process and leaves no file behind. Where the file system has no locks
builds go on without, and nothing is deleted.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def share_directory(directory: Path) -> Iterator[None]:
    """Keep others from deleting in a directory; waits while somebody deletes, which takes moments."""
    with _opened(directory) as descriptor:
        if descriptor is not None:
            _lock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def own_directory(directory: Path) -> Iterator[bool]:
    """Have a directory alone if nobody shares it at this moment; tells whether that worked."""
    with _opened(directory) as descriptor:
        yield descriptor is not None and _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _opened(directory: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True
