"""Work for the fault server that no command does: what the server does with an upload, and pulls without a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelbuild.digest import Digest, digest_of
from modelbuild.engine.transfer import pull_model
from modelbuild.model_name import parse_name
from modelbuild.remote.registry import Registry
from modelbuild.server.blobs import Receiver
from modelbuild.store.blobs import BlobStore
from modelbuild.store.config import ModelConfig
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.store import Store

UPLOAD = bytes(range(256)) * 40
_PART_BYTES = 4096


def upload() -> None:
    """Receive a blob part by part and publish it."""
    with BlobStore(Path(os.environ["MODELBUILD_STORE"])).stage() as staged:
        receiver = Receiver(staged)
        for start in range(0, len(UPLOAD), _PART_BYTES):
            receiver.take(UPLOAD[start : start + _PART_BYTES])
        staged.publish(receiver.digest)


def continued_upload() -> None:
    """Receive a blob in two requests, the second of which goes on where the first one stopped."""
    store, digest = BlobStore(Path(os.environ["MODELBUILD_STORE"])), digest_of(UPLOAD)
    for end in (len(UPLOAD) // 2, len(UPLOAD)):
        with store.stage_arriving(digest) as staged:
            receiver = Receiver(staged)
            receiver.resume(staged.appended_bytes)
            receiver.take(UPLOAD[receiver.size_bytes : end])
            if receiver.size_bytes == len(UPLOAD):
                staged.publish(receiver.digest)


class _Registry(Registry):
    """One that has a model of two layers, in memory."""

    def __init__(self) -> None:
        layers = (("model", UPLOAD), ("system", b"Be brief."))
        config = ModelConfig(model_format="gguf").encode()
        self._blobs = {digest_of(data): data for data in (UPLOAD, b"Be brief.", config)}
        parts = tuple(Layer(layer_media_type(kind), digest_of(data), len(data)) for kind, data in layers)
        self._manifest = Manifest(Layer(CONFIG_MEDIA_TYPE, digest_of(config), len(config)), parts)

    def manifest(self, repository: str, tag: str, media_type: str) -> bytes:
        return self._manifest.encode()

    @contextmanager
    def read_blob(self, repository: str, digest: Digest, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        data = self._blobs[digest][offset:]
        yield offset, (data[start : start + _PART_BYTES] for start in range(0, len(data), _PART_BYTES))


def pull() -> None:
    """Fetch a model."""
    store = Store(Path(os.environ["MODELBUILD_STORE"]))
    pull_model(parse_name("models.example/acme/m:1"), _Registry(), store, lambda status: None)


def collect() -> None:
    """What a starting server does first: remove what was left behind."""
    store = BlobStore(Path(os.environ["MODELBUILD_STORE"]))
    store.prepare()
    store.sweep()
