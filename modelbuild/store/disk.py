"""What is asked of the disk beyond reading and writing. Systems other than Linux lack some of these calls.

Where one is missing, what comes nearest is done: nothing that is promised depends on the difference.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

#: File systems that cannot reserve space say so with one of these.
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def reserve_space(fd: int, size_bytes: int) -> None:
    """Give a file its size, on the disk where that can be asked for; OSError when it does not fit."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size_bytes)
            return
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
    os.ftruncate(fd, size_bytes)


def begin_writing(fd: int, start: int, stop: int) -> None:
    """Let the system begin to write a range to the disk, where it can be told; waits for nothing."""
    if hasattr(os, "posix_fadvise"):
        # Linux begins to write the dirty pages of a range that will not be needed, waits for none, keeps them.
        with suppress(OSError):
            os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_DONTNEED)


def sync_content(fd: int) -> None:
    """Make what was written to a file durable; its times need not be."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)
