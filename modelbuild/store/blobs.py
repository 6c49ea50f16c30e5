"""The `blobs/` directory: content named by its SHA-256, put there whole or not at all.

Everything is staged in `<store>/.modelbuild/`, a directory that Ollama never scans, on the same file system as the
blobs so that publishing is one rename. A staged file is locked by its writer; what a killed process left behind is
swept by the next one.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from modelbuild.digest import Digest, digest_of
from modelbuild.errors import ChangedError, InputError, StoreError
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.hashing import digest_of_file
from modelbuild.records import record
from modelbuild.store.arriving import ArrivingFile, arriving_name
from modelbuild.store.partial import JOURNAL_SUFFIX, PARTIAL_PREFIX, PartialFile
from modelbuild.store.staged import StagedFile, sync_directory, unusable_store

#: Linux ioctl that makes a file share the blocks of another one (FICLONE, linux/fs.h).
FICLONE = 0x40049409
STAGING_DIRECTORY = ".modelbuild"
#: A partial file that no run came back for within this time is removed.
PARTIAL_KEPT_S = 7 * 24 * 3600
#: Notes about blobs that may be needless now, see store/leftovers.py; they outlive the run that wrote them.
LEFTOVERS_PREFIX = "leftovers-"
#: Pins, see store/pins.py; they stay until somebody removes them.
PIN_PREFIX = "pin-"

Progress = Callable[[int], None]
_T = TypeVar("_T")


@record
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
            raise unusable_store(self.blobs, error) from error
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def sound_path(self, digest: Digest, size_bytes: int) -> Path:
        """The path of a blob that is a regular file of this size; InputError MANIFEST otherwise.

        For whoever shows or sends what is in it: a link in the place of a blob may lead to any file of this machine.
        """
        found = self.size_of(digest)
        if found != size_bytes:
            what = "is missing, or no regular file" if found is None else f"has {found:,} bytes, not {size_bytes:,}"
            hint = "run 'modelbuild verify'"
            raise InputError("MANIFEST", f"the blob {digest} {what}", path=self.path(digest), hint=hint)
        return self.path(digest)

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

        link: one of store.link_mode.LINK_MODES; "auto" hard-links only files that belong to this user and that nobody
        else can write. known: the digest of what `source.stat` describes, if it was worked out before. Raises
        ChangedError, and leaves nothing under a wrong name, if the file changes meanwhile.
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
        return self._adopt_copy(source, progress) if adopted is None else adopted

    def sync(self) -> None:
        """Make the names of all blobs durable; a manifest that names them is written after this."""
        sync_directory(self.blobs)

    def prepare(self) -> None:
        """Create the directories of the store where they are missing."""
        try:
            self.blobs.mkdir(parents=True, exist_ok=True)
            (self.root / "manifests").mkdir(exist_ok=True)
        except OSError as error:
            raise unusable_store(self.root, error) from error

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
            self.remove_empty_staging()

    @contextmanager
    def stage_partial(self, key: str, identity: bytes, size_bytes: int) -> Iterator[StagedFile]:
        """Like `stage`, but the file survives a killed or interrupted run and is continued by the next one.

        key: names the file; identity: 32 bytes that must agree for it to be continued. Gives a plain staged file
        when another process writes the same one at this moment. An error (not an interruption) removes it.
        """
        self.prepare()
        staged = self._open_partial(key, identity) or self._create_staged()
        try:
            staged.claim(size_bytes)
            yield staged
        except Exception:
            staged.discard()
            raise
        except BaseException:
            if isinstance(staged, PartialFile):
                staged.keep()
            raise
        finally:
            staged.discard()
            self.remove_empty_staging()

    @contextmanager
    def stage_arriving(self, digest: Digest) -> Iterator[ArrivingFile]:
        """Like `stage`, but what was appended stays for whatever brings this blob next, unless it is discarded.

        Raises BlockingIOError while somebody else brings it.
        """
        self.prepare()
        path = self.staging / arriving_name(digest)
        staged = self.in_staging(lambda: ArrivingFile(self, path))
        try:
            yield staged
        finally:
            staged.keep()
            self.remove_empty_staging()

    def arrived_bytes(self, digest: Digest) -> int:
        """How much of a blob has arrived that is not whole yet."""
        try:
            return (self.staging / arriving_name(digest)).lstat().st_size
        except OSError:
            return 0

    @contextmanager
    def set_aside(self, digest: Digest) -> Iterator[None]:
        """Take a damaged blob out of the way; afterwards it is removed, or put back if nobody made a new one.

        It waits in the staging directory, locked so that nobody takes it for a leftover. A blob that cannot be opened
        stays where it is; a new one replaces it.
        """
        path = self.path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            yield
            return
        aside = self.staging / f"{os.getpid()}-{os.urandom(8).hex()}"
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self.in_staging(lambda: path.rename(aside))
            yield
        finally:
            with suppress(OSError):
                aside.unlink() if path.exists() else aside.rename(path)
            os.close(descriptor)
            self.remove_empty_staging()

    def sweep(self) -> None:
        """Remove what killed processes left in the staging directory.

        Files of living processes are locked and stay; partial files stay until they are old.
        """
        try:
            leftovers = list(self.staging.iterdir())
        except OSError:
            return
        for path in leftovers:
            if not _is_kept(path):
                _remove_if_abandoned(path)
        self.remove_empty_staging()

    def in_staging(self, create: Callable[[], _T]) -> _T:
        """Create a file in the staging directory, which is made where missing: a neighbour may remove it any moment."""
        for _ in range(100):
            try:
                self.staging.mkdir(exist_ok=True)
                return create()
            except FileNotFoundError:
                continue
            except BlockingIOError:
                raise
            except OSError as error:
                raise unusable_store(self.staging, error) from error
        raise StoreError("STORE", f"{self.staging} keeps disappearing")

    def remove_empty_staging(self) -> None:
        """Remove the staging directory unless something is in it: a store at rest has none."""
        with suppress(OSError):
            self.staging.rmdir()

    def _open_partial(self, key: str, identity: bytes) -> PartialFile | None:
        path = self.staging / f"{PARTIAL_PREFIX}{key}"
        try:
            return self.in_staging(lambda: PartialFile(self, path, identity))
        except BlockingIOError:
            return None

    def _create_staged(self) -> StagedFile:
        path = self.staging / f"{os.getpid()}-{os.urandom(8).hex()}"
        return self.in_staging(lambda: StagedFile(self, path))

    def _adopt_clone(
        self, source: InputFile, known: Digest | None, progress: Progress | None, *, required: bool
    ) -> Adopted | None:
        with self.stage() as staged:
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
        self, source: InputFile, known: Digest | None, progress: Progress | None, *, required: bool
    ) -> Adopted | None:
        if source.stat.st_dev != self.blobs.stat().st_dev and not required:
            return None
        digest = known if known is not None else _digest_of(source, progress)
        _check_unchanged(source)
        target = self.path(digest)
        if self.size_of(digest) == source.size_bytes:
            self.refresh(digest)
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
        self._check_linked(source, target)
        return Adopted(digest, source.size_bytes, "hard link")

    def _check_linked(self, source: InputFile, target: Path) -> None:
        try:
            if not os.path.samestat(target.stat(), os.fstat(source.fd)):
                raise ChangedError("CHANGED", f"{source.path} was replaced while it was linked")
            _check_unchanged(source)
        except ChangedError:
            target.unlink(missing_ok=True)
            raise

    def _adopt_copy(self, source: InputFile, progress: Progress | None) -> Adopted:
        with self.stage(source.size_bytes) as staged:
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


def _is_kept(path: Path) -> bool:
    """Is this a pin, a note, or a partial file or the journal of one that a coming run may want?"""
    if path.name.startswith((LEFTOVERS_PREFIX, PIN_PREFIX)):
        return True
    if not path.name.startswith(PARTIAL_PREFIX):
        return False
    partial = path.with_name(path.name.removesuffix(JOURNAL_SUFFIX))
    try:
        return time.time() - partial.stat().st_mtime < PARTIAL_KEPT_S
    except OSError:
        return False


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


def _no_link(path: Path, how: str, error: OSError) -> StoreError:
    return StoreError(
        "STORE", f"cannot make a {how} of {path}: {error.strerror}", hint="use --link auto or --link copy"
    )
