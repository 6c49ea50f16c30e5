"""Uploads that can be continued: the file stays when its sender goes away, and is found again by its digest to be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.digest import Digest
from modelbuild.store.partial import PARTIAL_PREFIX
from modelbuild.store.staged import StagedFile

if TYPE_CHECKING:
    from modelbuild.store.blobs import BlobStore


class UploadFile(StagedFile):
    """A staged file that begins with what an earlier upload of the same blob has left."""

    def __init__(self, store: BlobStore, path: Path) -> None:
        """Continue the file at `path`, or begin it; BlockingIOError while somebody else writes it."""
        super().__init__(store, path, exclusive=False)
        self._end = os.fstat(self.fd).st_size

    @property
    def size_bytes(self) -> int:
        """How much is there."""
        return self._end

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self.fd, 0)
        self._end = 0

    def keep(self) -> None:
        """Close the file and leave it for later; does nothing once it is published or discarded, or empty."""
        if self.fd >= 0 and self._end:
            self._close()
        self.discard()


def upload_name(digest: Digest) -> str:
    """The name of an unfinished upload in the staging directory."""
    return f"{PARTIAL_PREFIX}upload-{digest.removeprefix('sha256:')}"
