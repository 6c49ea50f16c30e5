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
from modelbuild.errors import InputError, StoreError
from modelbuild.store.arriving import ArrivingFile, arriving_name
from modelbuild.store.partial import JOURNAL_SUFFIX, PARTIAL_PREFIX, PartialFile
from modelbuild.store.staged import StagedFile, sync_directory, unusable_store

STAGING_DIRECTORY = ".modelbuild"
#: A partial file that no run came back for within this time is removed.
PARTIAL_KEPT_S = 7 * 24 * 3600
#: Notes about blobs that may be needless now, see store/leftovers.py; they outlive the run that wrote them.
LEFTOVERS_PREFIX = "leftovers-"
#: Pins, see store/pins.py; they stay until somebody removes them.
PIN_PREFIX = "pin-"

_T = TypeVar("_T")


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
