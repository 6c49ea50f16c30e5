"""How a file that stands elsewhere becomes a blob: by sharing its blocks, by a second name, or by a copy."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.errors import ChangedError, InputError, StoreError
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.hashing import digest_of_file
from modelbuild.records import record
from modelbuild.store.blobs import BlobStore

#: Linux ioctl that makes a file share the blocks of another one (FICLONE, linux/fs.h).
FICLONE = 0x40049409

Progress = Callable[[int], None]


@record
class Adopted:
    """How a file became a blob: by "reflink", "hard link", "copy", or it was "present" already."""

    digest: Digest
    size_bytes: int
    how: str


def adopt_file(
    blobs: BlobStore,
    source: InputFile,
    *,
    link: str = "auto",
    known: Digest | None = None,
    progress: Progress | None = None,
) -> Adopted:
    """Make a file a blob, read at most once: reflink, else hard link, else copy while hashing.

    link: one of store.link_mode.LINK_MODES; "auto" hard-links only files that belong to this user and that nobody
    else can write. known: the digest of what `source.stat` describes, if it was worked out before. Raises
    ChangedError, and leaves nothing under a wrong name, if the file changes meanwhile.
    """
    if known is not None and blobs.size_of(known) == source.size_bytes:
        blobs.refresh(known)
        return Adopted(known, source.size_bytes, "present")
    blobs.prepare()
    adopted = None
    if link in ("auto", "reflink"):
        adopted = _adopt_clone(blobs, source, known, progress, required=link == "reflink")
    if adopted is None and (link == "hard" or (link == "auto" and _is_ours(source.stat))):
        adopted = _adopt_hard_link(blobs, source, known, progress, required=link == "hard")
    return _adopt_copy(blobs, source, progress) if adopted is None else adopted


def _adopt_clone(
    blobs: BlobStore, source: InputFile, known: Digest | None, progress: Progress | None, *, required: bool
) -> Adopted | None:
    with blobs.stage() as staged:
        try:
            fcntl.ioctl(staged.fd, FICLONE, source.fd)
        except OSError as error:
            if required:
                raise _no_link(source.path, "reflink", error) from error
            return None
        digest = known
        if digest is None:
            with open_input(staged.path) as clone:
                digest = digest_of_file(clone, progress)
        _check_unchanged(source)
        staged.publish(digest)
        return Adopted(digest, source.size_bytes, "reflink")


def _adopt_hard_link(
    blobs: BlobStore, source: InputFile, known: Digest | None, progress: Progress | None, *, required: bool
) -> Adopted | None:
    if source.stat.st_dev != blobs.blobs.stat().st_dev and not required:
        return None
    digest = known if known is not None else _digest_of(source, progress)
    _check_unchanged(source)
    target = blobs.path(digest)
    if blobs.size_of(digest) == source.size_bytes:
        blobs.refresh(digest)
        return Adopted(digest, source.size_bytes, "present")
    try:
        with suppress(FileNotFoundError):
            target.unlink()  # a damaged blob of another size
        _link_open_file(source, target)
    except FileExistsError:
        return Adopted(digest, source.size_bytes, "present")
    except OSError as error:
        if required:
            raise _no_link(source.path, "hard link", error) from error
        return None
    _check_linked(source, target)
    return Adopted(digest, source.size_bytes, "hard link")


def _check_linked(source: InputFile, target: Path) -> None:
    try:
        if not os.path.samestat(target.stat(), os.fstat(source.fd)):
            raise ChangedError("CHANGED", f"{source.path} was replaced while it was linked")
        _check_unchanged(source)
    except ChangedError:
        target.unlink(missing_ok=True)
        raise


def _adopt_copy(blobs: BlobStore, source: InputFile, progress: Progress | None) -> Adopted:
    with blobs.stage(source.size_bytes) as staged:
        digest = _digest_of(source, progress, sink=staged.append)
        staged.publish(digest)
        return Adopted(digest, source.size_bytes, "copy")


def _digest_of(
    source: InputFile, progress: Progress | None, sink: Callable[[memoryview], object] | None = None
) -> Digest:
    """The digest of a whole file; ChangedError when it was cut or written to while it was read."""
    try:
        digest = digest_of_file(source, progress, sink=sink)
    except InputError:
        _check_unchanged(source)
        raise
    _check_unchanged(source)
    return digest


def _link_open_file(source: InputFile, target: Path) -> None:
    """Hard-link an open file; where the system has no name for those, whatever stands at its path."""
    try:
        # With a directory descriptor (unused for an absolute path) Python calls linkat and follows the link in /proc to
        # the open file itself; plain link() would try to link the link.
        os.link(f"/proc/self/fd/{source.fd}", target, src_dir_fd=source.fd, follow_symlinks=True)
    except FileNotFoundError:
        os.link(os.path.realpath(source.path), target)


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _check_unchanged(source: InputFile) -> None:
    now = os.fstat(source.fd)
    if (now.st_size, now.st_mtime_ns) != (source.stat.st_size, source.stat.st_mtime_ns):
        raise ChangedError(
            "CHANGED",
            f"{source.path} changed while it was imported",
            hint="run the build again when it is complete",
        )


def _no_link(path: Path, how: str, error: OSError) -> StoreError:
    return StoreError(
        "STORE", f"cannot make a {how} of {path}: {error.strerror}", hint="use --link auto or --link copy"
    )
