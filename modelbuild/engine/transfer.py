"""Models to and from registries: pull and push, with the status lines that Ollama's clients know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelbuild.engine.create import Report, Status
from modelbuild.errors import InputError, RemoteError, SpaceError
from modelbuild.formats.files import open_input
from modelbuild.model_name import ModelName, parse_name
from modelbuild.remote.registry import Registry
from modelbuild.store.arriving import ArrivingFile
from modelbuild.store.manifest import (
    MANIFEST_MEDIA_TYPE,
    Layer,
    Manifest,
    decode_manifest,
    read_manifest_bytes,
)
from modelbuild.store.staged import StagedFile, require_space
from modelbuild.store.store import Store

#: How often a fetch that broke off is continued where it stood.
_TRIES = 5
_CHUNK_BYTES = 1 << 20
_GO_ON = "pull again: what has arrived is kept for a week, and not fetched twice"


def pull_model(name: ModelName, registry: Registry, store: Store, report: Report) -> None:
    """Fetch a model; its manifest appears last, with the registry's bytes.

    RemoteError when the registry does not give it, or gives bytes of another digest; SpaceError before anything is
    fetched that would not fit.
    """
    report(Status("pulling manifest"))
    data, manifest = _fetch_manifest(name, registry)
    with store.hold():
        layers = _distinct((*manifest.layers, manifest.config))
        _check_space(layers, store)
        for layer in layers:
            _pull_layer(name, layer, registry, store, report)
        report(Status("verifying sha256 digest"))
        report(Status("writing manifest"))
        store.publish_bytes(name, manifest, data)
    if store.collect().removed:
        report(Status("removing unused layers"))
    report(Status("success"))


def push_model(name: ModelName, registry: Registry, store: Store, report: Report) -> None:
    """Send a model; InputError PATH when it is not stored, RemoteError when the registry does not take it."""
    report(Status("retrieving manifest"))
    path = store.manifest_path(name)
    data = read_manifest_bytes(path)
    manifest = decode_manifest(data, path)
    for layer in _distinct((*manifest.layers, manifest.config)):
        _push_layer(name, layer, registry, store, report)
    report(Status("pushing manifest"))
    registry.write_manifest(_repository(name), name.tag, manifest.encode().rstrip(b"\n"), MANIFEST_MEDIA_TYPE)
    report(Status("success"))


def _fetch_manifest(name: ModelName, registry: Registry) -> tuple[bytes, Manifest]:
    try:
        data = registry.manifest(_repository(name), name.tag, MANIFEST_MEDIA_TYPE)
        return data, decode_manifest(data, Path(str(name)))
    except (RemoteError, InputError) as error:
        raise RemoteError("REGISTRY", f"pull model manifest: {error.message}", hint=error.hint) from error


def _pull_layer(name: ModelName, layer: Layer, registry: Registry, store: Store, report: Report) -> None:
    text = f"pulling {layer.digest[7:19]}"
    if store.blobs.size_of(layer.digest) == layer.size_bytes:
        store.blobs.refresh(layer.digest)
        report(Status(text, layer.digest, layer.size_bytes, layer.size_bytes))
        return
    report(Status(text, layer.digest, layer.size_bytes))
    with _stage(layer, store) as staged:
        fetch = _Fetch(name, layer, registry, staged)
        for done_bytes in fetch.run():
            if done_bytes < layer.size_bytes:  # whether all of them are the right ones shows only then
                report(Status(text, layer.digest, layer.size_bytes, done_bytes))
        staged.publish(layer.digest)
    report(Status(text, layer.digest, layer.size_bytes, layer.size_bytes))


@contextmanager
def _stage(layer: Layer, store: Store) -> Iterator[StagedFile]:
    """The file that a layer is fetched into, with what an earlier transfer has left.

    What has arrived stays, whatever ends the transfer, but for bytes that are not the blob's and on a full disk.
    """
    with ExitStack() as stack:
        try:
            staged: StagedFile = stack.enter_context(store.blobs.stage_arriving(layer.digest))
        except BlockingIOError:  # somebody else brings it at this moment
            staged = stack.enter_context(store.blobs.stage(layer.size_bytes))
        try:
            yield staged
        except (_OtherBytesError, SpaceError):
            staged.discard()
            raise
        except RemoteError as error:
            if isinstance(staged, ArrivingFile) and staged.appended_bytes:
                error.hint = _GO_ON
            raise


class _OtherBytesError(RemoteError):
    """What arrived is not the blob that its digest names."""


class _Fetch:
    """One blob on its way into a staged file, hashed as it comes; continued a few times when it breaks off."""

    def __init__(self, name: ModelName, layer: Layer, registry: Registry, staged: StagedFile) -> None:
        self._repository = _repository(name)
        self._layer = layer
        self._registry = registry
        self._staged = staged
        self._restart_hash()

    def run(self) -> Iterator[int]:
        """Fetch what is not there yet; gives the bytes done after each part."""
        yield from self._take_over()
        is_continued = self._done_bytes > 0
        yield from self._fetch()
        if is_continued and not self._is_right():  # other bytes were left here, by whomever
            self._staged.restart()
            self._restart_hash()
            yield from self._fetch()
        self._check()

    def _restart_hash(self) -> None:
        self._hasher = hashlib.sha256()
        self._done_bytes = 0

    def _take_over(self) -> Iterator[int]:
        """Hash what an earlier transfer has left."""
        there_bytes = self._staged.appended_bytes
        if there_bytes > self._layer.size_bytes:
            self._staged.restart()
            return
        while part := self._staged.read_at(self._done_bytes, min(_CHUNK_BYTES, there_bytes - self._done_bytes)):
            self._hasher.update(part)
            self._done_bytes += len(part)
            yield self._done_bytes

    def _fetch(self) -> Iterator[int]:
        for attempt in range(_TRIES):
            before_bytes = self._done_bytes
            if before_bytes == self._layer.size_bytes:
                return
            try:
                yield from self._continue()
                return
            except RemoteError as error:
                if error.code != "NETWORK" or attempt == _TRIES - 1 or self._done_bytes == before_bytes:
                    raise

    def _continue(self) -> Iterator[int]:
        with self._registry.read_blob(self._repository, self._layer.digest, self._done_bytes) as (start, parts):
            skip = self._done_bytes - start
            for part in parts:
                fresh = part[skip:] if skip < len(part) else b""
                skip = max(0, skip - len(part))
                self._take(fresh)
                yield self._done_bytes

    def _take(self, data: bytes) -> None:
        if self._done_bytes + len(data) > self._layer.size_bytes:
            raise self._wrong(f"sends more than {self._layer.size_bytes} bytes")
        self._hasher.update(data)
        self._staged.append(data)
        self._done_bytes += len(data)

    def _is_right(self) -> bool:
        return self._done_bytes == self._layer.size_bytes and f"sha256:{self._hasher.hexdigest()}" == self._layer.digest

    def _check(self) -> None:
        if not self._is_right():
            raise self._wrong("sends other bytes than its digest says")

    def _wrong(self, what: str) -> RemoteError:
        return _OtherBytesError("REGISTRY", f"the registry {what} for {self._layer.digest}")


def _push_layer(name: ModelName, layer: Layer, registry: Registry, store: Store, report: Report) -> None:
    text, repository = f"pushing {layer.digest[7:19]}", _repository(name)
    if not registry.has_blob(repository, layer.digest):

        def content() -> Iterator[bytes]:
            with open_input(store.blobs.sound_path(layer.digest, layer.size_bytes)) as source:
                for offset in range(0, layer.size_bytes, _CHUNK_BYTES):
                    yield source.read_at(offset, min(_CHUNK_BYTES, layer.size_bytes - offset))
                    report(Status(text, layer.digest, layer.size_bytes, min(offset + _CHUNK_BYTES, layer.size_bytes)))

        report(Status(text, layer.digest, layer.size_bytes))
        registry.write_blob(repository, layer.digest, layer.size_bytes, content, _mount_hint(name, layer))
    report(Status(text, layer.digest, layer.size_bytes, layer.size_bytes))


def _mount_hint(name: ModelName, layer: Layer) -> str:
    """The repository that a layer was taken from, when that is of the same registry."""
    try:
        origin = parse_name(layer.from_) if layer.from_ else None
    except InputError:
        return ""
    return _repository(origin) if origin is not None and origin.host.lower() == name.host.lower() else ""


def _check_space(layers: tuple[Layer, ...], store: Store) -> None:
    missing = [layer for layer in layers if store.blobs.size_of(layer.digest) != layer.size_bytes]
    there_bytes = sum(min(layer.size_bytes, store.blobs.arrived_bytes(layer.digest)) for layer in missing)
    if missing:
        require_space(store.root, sum(layer.size_bytes for layer in missing) - there_bytes)


def _distinct(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """One layer per digest, in order."""
    return tuple({layer.digest: layer for layer in reversed(layers)}.values())[::-1]


def _repository(name: ModelName) -> str:
    return f"{name.namespace}/{name.model}"
