"""Blobs that arrive from elsewhere: what came before the sender or the registry broke off is gone on with.

The file is named after the digest that is to come, so that whatever brings the same blob next finds it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.digest import Digest
from modelbuild.store.partial import PARTIAL_PREFIX
from modelbuild.store.staged import StagedFile

if TYPE_CHECKING:
    from modelbuild.store.blobs import BlobStore


class ArrivingFile(StagedFile):
    """A staged file that begins with what has arrived of the same blob before."""

    def __init__(self, store: BlobStore, path: Path) -> None:
        """Continue the file at `path`, or begin it; BlockingIOError while somebody else writes it."""
        super().__init__(store, path, exclusive=False)
        self._end = os.fstat(self.fd).st_size

    def keep(self) -> None:
        """Close the file and leave it for later; does nothing once it is published or discarded, or empty."""
        if self.fd >= 0 and self._end:
            self._close()
        self.discard()


def arriving_name(digest: Digest) -> str:
    """The name of what has arrived of a blob, in the staging directory."""
    return f"{PARTIAL_PREFIX}arriving-{digest.removeprefix('sha256:')}"
