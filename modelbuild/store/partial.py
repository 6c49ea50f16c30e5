"""Files that take long to write and survive a killed run: the blocks written so far are kept in a journal.

The journal stands beside the file and holds one record per written block: its number and a check sum of its bytes.
A block counts as written only if its bytes still give that sum, so neither a crash nor a power cut can fool the next
run; order of writing and flushing does not matter.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.store.staged import StagedFile

if TYPE_CHECKING:
    from modelbuild.store.blobs import BlobStore

CHECK_BYTES = 16
PARTIAL_PREFIX = "partial-"
JOURNAL_SUFFIX = ".journal"
_RECORD = struct.Struct(f"<I{CHECK_BYTES}s")


class PartialFile(StagedFile):
    """A staged file with a journal; `written` maps block numbers to check sums recorded by an earlier run."""

    def __init__(self, store: BlobStore, path: Path, identity: bytes) -> None:
        """Continue the file at `path` if its journal carries this 32-byte identity, else begin it anew.

        Raises BlockingIOError while another process writes it.
        """
        self._journal_path = path.with_name(path.name + JOURNAL_SUFFIX)
        self._journal_fd = -1
        super().__init__(store, path, exclusive=False)
        try:
            # Opened only now: whoever holds the lock of the file owns its journal.
            self._journal_fd = os.open(self._journal_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.written = self._read_journal(identity)
        except BaseException:
            self._close()
            raise
        self._is_noting = True

    def note_written(self, block: int, check: bytes) -> None:
        """Record that a block's bytes have been written; a journal that cannot grow ends there and costs nothing."""
        if self._is_noting:
            with suppress(OSError):
                self._is_noting = os.write(self._journal_fd, _RECORD.pack(block, check)) == _RECORD.size
                return
            self._is_noting = False

    def keep(self) -> None:
        """Close the file and leave it for the next run; does nothing once it is published or discarded."""
        if self.fd >= 0:
            self._close()

    def _remove(self) -> None:
        super()._remove()
        with suppress(OSError):
            self._journal_path.unlink()

    def _close(self) -> None:
        super()._close()
        if self._journal_fd >= 0:
            os.close(self._journal_fd)

    def _published(self) -> None:
        with suppress(OSError):
            self._journal_path.unlink()

    def _read_journal(self, identity: bytes) -> dict[int, bytes]:
        data = _read_all(self._journal_fd)
        if data[: len(identity)] != identity:
            os.ftruncate(self._journal_fd, 0)
            os.ftruncate(self.fd, 0)
            os.write(self._journal_fd, identity)
            return {}
        whole = len(identity) + (len(data) - len(identity)) // _RECORD.size * _RECORD.size
        os.ftruncate(self._journal_fd, whole)
        os.lseek(self._journal_fd, whole, os.SEEK_SET)
        return dict(_RECORD.iter_unpack(data[len(identity) : whole]))


def _read_all(fd: int) -> bytes:
    parts: list[bytes] = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)
