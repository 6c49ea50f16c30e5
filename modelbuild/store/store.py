"""A models directory as a whole: its models by name, on top of blobs and manifests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelbuild.digest import Digest, digest_of
from modelbuild.errors import InputError, ModelbuildError
from modelbuild.model_name import ModelName, parse_name
from modelbuild.store.blobs import BlobStore
from modelbuild.store.manifest import Manifest, read_manifest
from modelbuild.store.staged import write_atomically

_MANIFEST_DEPTH = 4


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model found in the store, or the reason why its manifest cannot be read."""

    name: ModelName
    path: Path
    modified_ns: int
    manifest: Manifest | None
    digest: Digest | None
    damage: str = ""


class Store:
    """Reads and publishes models in one Ollama models directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifests = root / "manifests"
        self.blobs = BlobStore(root)

    def manifest_path(self, name: ModelName) -> Path:
        """Where the manifest of a model stands."""
        return self.manifests / name.relative_path

    def find(self, name: ModelName) -> tuple[Manifest, Digest] | None:
        """The manifest of a model and the digest of its bytes, or None when there is no such model."""
        try:
            return read_manifest(self.manifest_path(name))
        except InputError as error:
            if error.code == "PATH":
                return None
            raise

    def publish(self, name: ModelName, manifest: Manifest) -> Digest:
        """Write a manifest in one step; its blobs must be in place. Returns the digest of its bytes."""
        data = manifest.encode()
        with self.blobs.stage() as staged:
            write_atomically(self.manifest_path(name), data, staged)
        return digest_of(data)

    def models(self) -> list[StoredModel]:
        """All models, sorted by name; a damaged manifest is reported and never hides the others."""
        return sorted((_load(path, name) for path, name in self._manifest_files()), key=lambda model: model.name)

    def spelling(self, name: ModelName) -> ModelName:
        """The name with each part spelt as on disk where a part differs only in case, as Ollama does."""
        parts = [name.host, name.namespace, name.model, name.tag]
        for _, existing in self._manifest_files():
            found = (existing.host, existing.namespace, existing.model, existing.tag)
            parts = [new if new.lower() == old.lower() else old for old, new in zip(parts, found, strict=True)]
        return ModelName(*parts)

    def _manifest_files(self) -> Iterator[tuple[Path, ModelName]]:
        for path in sorted(_files_at_depth(self.manifests, _MANIFEST_DEPTH)):
            host, namespace, model, tag = path.relative_to(self.manifests).parts
            try:
                yield path, parse_name(f"{host}/{namespace}/{model}:{tag}")
            except InputError:
                continue  # not a model: Ollama skips such files as well


def _files_at_depth(directory: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            children = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in children:
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _files_at_depth(Path(entry.path), depth - 1)
        elif depth == 1 and entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def _load(path: Path, name: ModelName) -> StoredModel:
    modified_ns = path.stat().st_mtime_ns
    try:
        manifest, digest = read_manifest(path)
    except ModelbuildError as error:
        return StoredModel(name, path, modified_ns, None, None, error.message)
    return StoredModel(name, path, modified_ns, manifest, digest)
