"""Work for the fault server that no command does: what the server does with the bytes of an upload."""

from __future__ import annotations

import os
from pathlib import Path

from modelbuild.server.blobs import Receiver
from modelbuild.store.blobs import BlobStore

UPLOAD = bytes(range(256)) * 40
_PART_BYTES = 4096


def upload() -> None:
    """Receive a blob part by part and publish it."""
    with BlobStore(Path(os.environ["MODELBUILD_STORE"])).stage() as staged:
        receiver = Receiver(staged)
        for start in range(0, len(UPLOAD), _PART_BYTES):
            receiver.take(UPLOAD[start : start + _PART_BYTES])
        staged.publish(receiver.digest)


def collect() -> None:
    """What a starting server does first: remove what was left behind."""
    store = BlobStore(Path(os.environ["MODELBUILD_STORE"]))
    store.prepare()
    store.sweep()
