"""The `blobs/` directory: content named by its SHA-256, put there whole or not at all.

Everything is staged in `<store>/.modelbuild/`, a directory that Ollama never scans, on the same file system as the
blobs so that publishing is one rename. A staged file is locked by its writer; what a killed process left behind is
swept by the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelbuild.digest import Digest, digest_of
from modelbuild.errors import ChangedError, SpaceError, StoreError
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.hashing import digest_of_file

#: Linux ioctl that makes a file share the blocks of another one (FICLONE, linux/fs.h).
_FICLONE = 0x40049409
BLOB_MODE = 0o644
STAGING_DIRECTORY = ".modelbuild"
LINK_MODES = ("auto", "reflink", "hard", "copy")

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Adopted:
    """How a file became a blob: by "reflink", "hard link", "copy", or it was "present" already."""

    digest: Digest
    size_bytes: int
    how: str


class BlobStore:
    """The blobs of one models directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.staging = root / STAGING_DIRECTORY

    def path(self, digest: Digest) -> Path:
        """Where a blob stands; the only place that turns a digest into a path."""
        return self.blobs / digest.replace(":", "-", 1)

    def size_of(self, digest: Digest) -> int | None:
        """The size of a blob in bytes, None when it is missing or no regular file."""
        try:
            status = self.path(digest).lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self.blobs, error) from error
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def put(self, data: bytes) -> Digest:
        """Store small content; returns its digest. A blob that is there already is only touched."""
        digest = digest_of(data)
        if self.size_of(digest) == len(data):
            self.refresh(digest)
            return digest
        with self.stage() as staged:
            staged.write_at(0, data)
            staged.publish(digest)
        return digest

    def refresh(self, digest: Digest) -> None:
        """Set a reused blob's time to now, so that a starting Ollama server does not take it for a leftover.

        Hard-linked blobs are left alone: their times belong to the user's file as well.
        """
        with suppress(OSError):
            path = self.path(digest)
            if path.lstat().st_nlink == 1:
                os.utime(path)

    def adopt(
        self,
        source: InputFile,
        *,
        link: str = "auto",
        known: Digest | None = None,
        progress: Progress | None = None,
    ) -> Adopted:
        """Make a file a blob, read at most once: reflink, else hard link, else copy while hashing.

        link: one of LINK_MODES; "auto" hard-links only files that belong to this user and that nobody else can
        write. known: the digest if it was worked out before. Raises ChangedError if the file changes meanwhile.
        """
        if known is not None and self.size_of(known) == source.size_bytes:
            self.refresh(known)
            return Adopted(known, source.size_bytes, "present")
        self.prepare()
        adopted = None
        if link in ("auto", "reflink"):
            adopted = self._adopt_clone(source, known, progress, required=link == "reflink")
        if adopted is None and (link == "hard" or (link == "auto" and _is_ours(source.stat))):
            adopted = self._adopt_hard_link(source, known, progress, required=link == "hard")
        if adopted is None:
            adopted = self._adopt_copy(source, progress)
        _check_unchanged(source)
        return adopted

    def prepare(self) -> None:
        """Create the directories of the store where they are missing."""
        try:
            self.blobs.mkdir(parents=True, exist_ok=True)
            (self.root / "manifests").mkdir(exist_ok=True)
        except OSError as error:
            raise _unusable(self.root, error) from error

    @contextmanager
    def stage(self, size_bytes: int = 0) -> Iterator[StagedFile]:
        """A locked new file that vanishes unless it is published; size_bytes of disk are claimed up front."""
        self.prepare()
        staged = self._create_staged()
        try:
            if size_bytes:
                staged.claim(size_bytes)
            yield staged
        finally:
            staged.discard()
            self._remove_empty_staging()

    def sweep(self) -> None:
        """Remove what killed processes left in the staging directory; files of living ones are locked and stay."""
        try:
            leftovers = list(self.staging.iterdir())
        except OSError:
            return
        for path in leftovers:
            _remove_if_abandoned(path)
        self._remove_empty_staging()

    def _create_staged(self) -> StagedFile:
        for _ in range(100):  # a sweeping neighbour may remove the directory between the two calls
            try:
                self.staging.mkdir(exist_ok=True)
                return StagedFile(self, self.staging / f"{os.getpid()}-{secrets.token_hex(8)}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unusable(self.staging, error) from error
        raise StoreError("STORE", f"{self.staging} keeps disappearing")

    def _remove_empty_staging(self) -> None:
        with suppress(OSError):
            self.staging.rmdir()

    def _adopt_clone(
        self, source: InputFile, known: Digest | None, progress: Progress | None, *, required: bool
    ) -> Adopted | None:
        with self.stage() as staged:
            try:
                fcntl.ioctl(staged.fd, _FICLONE, source.fd)
            except OSError as error:
                if required:
                    raise _no_link(source.path, "reflink", error) from error
                return None
            digest = known
            if digest is None:
                with open_input(staged.path) as clone:
                    digest = digest_of_file(clone, progress)
            staged.publish(digest)
            return Adopted(digest, source.size_bytes, "reflink")

    def _adopt_hard_link(
        self, source: InputFile, known: Digest | None, progress: Progress | None, *, required: bool
    ) -> Adopted | None:
        if source.stat.st_dev != self.blobs.stat().st_dev and not required:
            return None
        digest = known if known is not None else digest_of_file(source, progress)
        target = self.path(digest)
        if self.size_of(digest) == source.size_bytes:
            return Adopted(digest, source.size_bytes, "present")
        try:
            with suppress(FileNotFoundError):
                target.unlink()  # a damaged blob of another size
            os.link(f"/proc/self/fd/{source.fd}", target, follow_symlinks=True)
        except FileExistsError:
            return Adopted(digest, source.size_bytes, "present")
        except OSError as error:
            if required:
                raise _no_link(source.path, "hard link", error) from error
            return None
        if not os.path.samestat(target.stat(), os.fstat(source.fd)):
            target.unlink()
            raise ChangedError("CHANGED", f"{source.path} was replaced while it was linked")
        _sync_directory(self.blobs)
        return Adopted(digest, source.size_bytes, "hard link")

    def _adopt_copy(self, source: InputFile, progress: Progress | None) -> Adopted:
        with self.stage(source.size_bytes) as staged:
            digest = digest_of_file(source, progress, sink=staged.append)
            staged.publish(digest)
            return Adopted(digest, source.size_bytes, "copy")


class StagedFile:
    """A file being written; it becomes a blob by `publish` or disappears."""

    def __init__(self, store: BlobStore, path: Path) -> None:
        self._store = store
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        self._end = 0

    def claim(self, size_bytes: int) -> None:
        """Reserve disk space, so that a full disk shows before the work and not after it."""
        try:
            os.posix_fallocate(self.fd, 0, size_bytes)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                os.ftruncate(self.fd, size_bytes)
                return
            raise self._failed(error, size_bytes) from error

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of data at an offset."""
        rest = memoryview(data).cast("B")
        try:
            while rest:
                written = os.pwrite(self.fd, rest, offset)
                offset += written
                rest = rest[written:]
        except OSError as error:
            raise self._failed(error, len(rest)) from error

    def append(self, data: bytes | memoryview) -> None:
        """Write data behind what was appended before."""
        self.write_at(self._end, data)
        self._end += len(memoryview(data).cast("B"))

    def publish(self, digest: Digest) -> None:
        """Flush to disk, then give the file its blob name in one step."""
        target = self._store.path(digest)
        try:
            os.fchmod(self.fd, BLOB_MODE)
            os.fdatasync(self.fd)
            self.path.rename(target)
            _sync_directory(self._store.blobs)
        except OSError as error:
            raise self._failed(error, 0) from error
        self._close()

    def discard(self) -> None:
        """Remove the file unless it was published; safe to call twice."""
        if self.fd >= 0:
            with suppress(OSError):
                self.path.unlink()
            self._close()

    def _close(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def _failed(self, error: OSError, size_bytes: int) -> StoreError:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _unusable(self.path, error)
        return no_space(self._store.root, size_bytes)


def no_space(root: Path, needed_bytes: int) -> SpaceError:
    """The error for a disk that is too full, with the numbers."""
    free_bytes = free_space(root)
    return SpaceError(
        "SPACE",
        f"not enough room in {root}: {needed_bytes:,} bytes needed, {free_bytes:,} free",
        hint="free some disk space, or choose another models directory with --store",
    )


def free_space(root: Path) -> int:
    """Bytes a user may still write below a directory that need not exist yet."""
    directory = root
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def write_atomically(path: Path, data: bytes, staging: StagedFile) -> None:
    """Replace a file in one step: the data reach the disk before the name does."""
    staging.write_at(0, data)
    os.fchmod(staging.fd, BLOB_MODE)
    os.fsync(staging.fd)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging.path.rename(path)
    _sync_directory(path.parent)


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


def _remove_if_abandoned(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return  # locked: its writer is alive; or another sweeper was faster
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        "STORE",
        f"cannot use {path}: {error.strerror}",
        hint="check that the directory exists and that you may write to it, or choose another one with --store",
    )


def _no_link(path: Path, how: str, error: OSError) -> StoreError:
    return StoreError(
        "STORE", f"cannot make a {how} of {path}: {error.strerror}", hint="use --link auto or --link copy"
    )
