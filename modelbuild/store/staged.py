"""Files being written: invisible until they are whole, gone if they never are.

A staged file is locked by its writer, so that others can tell one that is being written from one that a killed
process left behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.digest import Digest
from modelbuild.errors import SpaceError, StoreError
from modelbuild.store.disk import begin_writing, reserve_space, sync_content

if TYPE_CHECKING:
    from modelbuild.store.blobs import BlobStore

BLOB_MODE = 0o644
#: Room left beside what is written, for the small documents and the file system's own needs.
SPACE_MARGIN_BYTES = 64 << 20
#: The disk is told to begin with what was written whenever this much has gathered, so that publishing hardly waits.
_FLUSHED_BYTES = 32 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FREE_SOME = "free some disk space, or choose another models directory with --store"


class StagedFile:
    """A file being written; it becomes a blob by `publish` or disappears."""

    def __init__(self, store: BlobStore, path: Path, *, exclusive: bool = True) -> None:
        """Create the file; with `exclusive` false one that is there is taken over.

        Raises FileExistsError when an exclusive one is there, BlockingIOError when another process writes it.
        """
        self._store = store
        self.path = path
        self.fd = _open_locked(path, os.O_EXCL if exclusive else 0)
        self._end = 0
        self._unflushed = range(0)  # what was written in one run since the disk was last told

    @property
    def appended_bytes(self) -> int:
        """Where the next `append` writes."""
        return self._end

    def restart(self) -> None:
        """Forget what was appended."""
        os.ftruncate(self.fd, 0)
        self._end = 0
        self._unflushed = range(0)

    def claim(self, size_bytes: int) -> None:
        """Reserve disk space, so that a full disk shows before the work and not after it."""
        try:
            reserve_space(self.fd, size_bytes)
        except OSError as error:
            raise self._failed(error, size_bytes) from error

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of data at an offset."""
        start, rest = offset, memoryview(data).cast("B")
        try:
            while rest:
                written = os.pwrite(self.fd, rest, offset)
                offset += written
                rest = rest[written:]
        except OSError as error:
            raise self._failed(error, len(rest)) from error
        self._begin_flushing(start, offset)

    def append(self, data: bytes | memoryview) -> None:
        """Write data behind what was appended before."""
        self.write_at(self._end, data)
        self._end += len(memoryview(data).cast("B"))

    def publish(self, digest: Digest) -> None:
        """Flush to disk, then give the file its blob name in one step.

        The name itself is durable after `BlobStore.sync`, which comes once before a manifest names the blobs.
        """
        try:
            self._rename(self._store.path(digest), sync_content)
        except OSError as error:
            raise self._failed(error, 0) from error
        self._published()
        self._close()

    def replace(self, target: Path) -> None:
        """Flush to disk, then take the place of the file `target`, whose directories are made where missing."""
        for _ in range(100):  # a neighbour may remove the empty directories between the two steps
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._rename(target, os.fsync)
                break
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._failed(error, 0) from error
        else:
            raise StoreError("STORE", f"{target.parent} keeps disappearing")
        self._close()
        sync_directory(target.parent)

    def discard(self) -> None:
        """Remove the file unless it was published; safe to call twice."""
        if self.fd >= 0:
            self._remove()
            self._close()

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Bytes that were written before; fewer when the file ends earlier."""
        return os.pread(self.fd, size_bytes, offset)

    def _begin_flushing(self, start: int, stop: int) -> None:
        first = self._unflushed.start if start == self._unflushed.stop else start
        self._unflushed = range(first, stop)
        if stop - first >= _FLUSHED_BYTES:
            begin_writing(self.fd, first, stop)
            self._unflushed = range(stop, stop)

    def _rename(self, target: Path, flush: Callable[[int], None]) -> None:
        os.fchmod(self.fd, BLOB_MODE)
        flush(self.fd)
        self.path.rename(target)

    def _published(self) -> None:
        """Called once the file has become a blob."""

    def _remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()

    def _close(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def _failed(self, error: OSError, size_bytes: int) -> StoreError:
        return no_space(self._store.root, size_bytes) if error.errno in _FULL else unusable_store(self.path, error)


def _open_locked(path: Path, flags: int) -> int:
    """An open and locked file that stands at `path`: whoever had it before may have just renamed it.

    A new file (O_EXCL) can only be in the hands of a sweeper, for a moment; so that lock is waited for.
    """
    how = fcntl.LOCK_EX if flags & os.O_EXCL else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(fd, how)
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def is_being_written(path: Path) -> bool:
    """Does somebody hold the lock of a file in the staging directory?"""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here: its writer has none either
        return False
    finally:
        os.close(descriptor)
    return False


def require_space(root: Path, needed_bytes: int, margin_bytes: int = SPACE_MARGIN_BYTES) -> None:
    """SpaceError when there is no room below a directory for so many bytes and the margin."""
    if needed_bytes + margin_bytes > free_space(root):
        raise no_space(root, needed_bytes + margin_bytes)


def no_space(root: Path, needed_bytes: int) -> SpaceError:
    """The error for a disk that is too full, with the numbers."""
    free_bytes = free_space(root)
    return SpaceError(
        "SPACE",
        f"not enough room in {root}: {needed_bytes:,} bytes needed, {free_bytes:,} free",
        hint=_FREE_SOME,
    )


def free_space(root: Path) -> int:
    """Bytes a user may still write below a directory that need not exist yet."""
    directory = root
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable; one that somebody has removed meanwhile has none."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable_store(directory, error) from error


def unusable_store(path: Path, error: OSError) -> StoreError:
    """The error for a models directory that the system does not let us use; SpaceError where room is what it lacks."""
    if error.errno in _FULL:
        return SpaceError("SPACE", f"cannot use {path}: {error.strerror}", hint=_FREE_SOME)
    return StoreError(
        "STORE",
        f"cannot use {path}: {error.strerror}",
        hint="check that the directory exists and that you may write to it, or choose another one with --store",
    )
