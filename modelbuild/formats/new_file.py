"""Writing a file of the user: it appears whole under its name, or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from modelbuild.errors import StoreError

#: Of new files, before the user's mask.
_FILE_MODE = 0o666


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `path` when the block ends well; StoreError OUTPUT when it cannot.

    A link stays a link to what is replaced, permissions are kept, a device is written as it is. What a killed process
    left half written has a name of its own, and the next one that writes the same file takes it over.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:
                yield stream
            return
        with _temporary_beside(target) as (stream, temporary):
            yield stream
            stream.flush()
            if target.exists():
                os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
            os.fsync(stream.fileno())
            temporary.replace(target)
    except OSError as error:
        hint = "check that the directory exists, that you may write to it, and that the disk has room"
        raise StoreError("OUTPUT", f"cannot write {path}: {error.strerror}", hint=hint) from error


@contextmanager
def _temporary_beside(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """An empty file that is gone when the block ends, unless it was renamed."""
    fd, temporary = _open_locked(target)
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream, temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def _open_locked(target: Path) -> tuple[int, Path]:
    """A file to fill, with its usual name unless another process fills that one at this moment."""
    usual = target.with_name(f".{target.name}.partial")
    for temporary in (usual, target.with_name(f".{target.name}.{os.urandom(4).hex()}.partial")):
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), temporary.stat()):
                os.ftruncate(fd, 0)
                return fd, temporary
        except (BlockingIOError, FileNotFoundError):
            pass  # in use, or just renamed by its writer
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise FileExistsError(errno.EEXIST, "others write it at this moment")
