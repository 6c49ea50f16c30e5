"""A models directory as a whole: its models by name, on top of blobs and manifests."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from modelbuild.digest import Digest, digest_of
from modelbuild.errors import InputError, ModelbuildError, StoreError
from modelbuild.formats.files import is_regular
from modelbuild.model_name import ModelName, parse_name
from modelbuild.records import record
from modelbuild.store.blobs import BlobStore
from modelbuild.store.leftovers import Collected, Leftovers, collect_leftovers, has_leftovers, note_leftovers
from modelbuild.store.lock import own_directory, share_directory
from modelbuild.store.manifest import Manifest, decode_manifest, listed_digest, read_manifest, read_manifest_bytes
from modelbuild.store.pins import pinned_blobs, read_pins
from modelbuild.store.spelling import Spellings
from modelbuild.store.staged import unusable_store

_MANIFEST_DEPTH = 4


@record
class StoredModel:
    """A model found in the store, or the reason why its manifest cannot be read.

    digest: of the manifest's bytes. listed: the hex digest Ollama's list shows, which may leave out a final newline.
    """

    name: ModelName
    path: Path
    modified_ns: int
    manifest: Manifest | None
    digest: Digest | None
    listed: str = ""
    damage: str = ""


class Store:
    """Reads and publishes models in one Ollama models directory."""

    def __init__(self, root: Path, *, prune: bool = True) -> None:
        """prune: whether blobs that a replaced model leaves behind are deleted (what OLLAMA_NOPRUNE turns off)."""
        self.root = root
        self.manifests = root / "manifests"
        self.blobs = BlobStore(root)
        self._prune = prune

    def manifest_path(self, name: ModelName) -> Path:
        """Where the manifest of a model stands."""
        return self.manifests / name.relative_path

    def find(self, name: ModelName) -> tuple[Manifest, Digest] | None:
        """The manifest of a model and the digest of its bytes, or None when there is no such model."""
        path = self.manifest_path(name)
        try:
            return read_manifest(path)
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise

    def hold(self) -> AbstractContextManager[None]:
        """Keep blobs from being collected, from the first use of one until the manifest that names it is written."""
        self.blobs.prepare()
        return share_directory(self.blobs.blobs)

    def publish(self, name: ModelName, manifest: Manifest) -> Digest:
        """Write a manifest in one step; its blobs must be in place. Returns the digest of its bytes.

        What the model had before and has no more is noted; `collect` deletes it.
        """
        return self.publish_bytes(name, manifest, manifest.encode())

    def publish_bytes(self, name: ModelName, manifest: Manifest, data: bytes) -> Digest:
        """Like `publish`, with the bytes that another program gave the manifest."""
        if self._prune:
            self._note_replaced(name, manifest)
        return self._write_manifest(name, data)

    def copy(self, source: ModelName, target: ModelName) -> Digest:
        """Give a model a second name: the manifest's bytes, verbatim. Returns their digest."""
        path = self.manifest_path(source)
        with self.hold():
            data = read_manifest_bytes(path)
            manifest = decode_manifest(data, path)
            if self.manifest_path(target) != path:
                self.publish_bytes(target, manifest, data)
        self.collect()
        return digest_of(data)

    def remove(self, name: ModelName) -> Collected:
        """Delete a model and the blobs that nobody else uses; InputError PATH when there is none of that name.

        A damaged manifest is removed as well; its blobs are unknown then and stay.
        """
        left = Leftovers(self._blobs_of_stored(name), time.time_ns())
        with suppress(StoreError):  # a full disk has no room for a note, and this is to free it
            note_leftovers(self.blobs, left.digests)
        path = self.manifest_path(name)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError("PATH", "no such model", path=path) from error
        except OSError as error:
            raise unusable_store(path, error) from error
        self._remove_empty_parents(path)
        return self.collect(left)

    def collect(self, unnoted: Leftovers | None = None) -> Collected:
        """Delete what was left behind, noted or not, and is used by no model; does nothing while a build is running."""
        if unnoted is None and not has_leftovers(self.blobs):
            return Collected()
        with own_directory(self.blobs.blobs) as alone:
            if not alone:
                return Collected(waiting="another build is running; the next one deletes what is not needed any more")
            try:
                used = self.used_blobs()
            except ModelbuildError as error:
                return Collected(waiting=f"nothing is deleted while a manifest cannot be read: {error}")
            return collect_leftovers(self.blobs, used, unnoted)

    def used_blobs(self) -> set[Digest]:
        """Every blob that some manifest names or a pin keeps; StoreError when one of them cannot be read."""
        used = pinned_blobs(read_pins(self.blobs))
        for path, name in self._manifest_files():
            try:
                used |= _blobs_of(read_manifest(path)[0])
            except ModelbuildError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    continue  # removed since it was listed
                place = f"{error.where}: " if error.where else ""
                message = f"the manifest of {name} cannot be read: {place}{error.message}"
                raise StoreError("MANIFEST", message, hint=f"build {name} again, or remove it") from error
        return used

    def models(self) -> list[StoredModel]:
        """All models, sorted by name; a damaged manifest is reported and never hides the others."""
        return sorted((_load(path, name) for path, name in self._manifest_files()), key=lambda model: model.name)

    def spellings(self) -> Spellings:
        """How the names in the store are spelt."""
        return Spellings(name for _, name in self._manifest_files())

    def spelling(self, name: ModelName) -> ModelName:
        """The name with each part spelt as on disk where a part differs only in case, as Ollama does."""
        return name if is_regular(self.manifest_path(name)) else self.spellings().of(name)

    def _note_replaced(self, name: ModelName, manifest: Manifest) -> None:
        note_leftovers(self.blobs, self._blobs_of_stored(name) - _blobs_of(manifest))

    def _blobs_of_stored(self, name: ModelName) -> set[Digest]:
        """What a model has now; nothing when there is none, or when its manifest is damaged and does not tell."""
        try:
            found = self.find(name)
        except InputError:
            return set()
        return set() if found is None else _blobs_of(found[0])

    def _write_manifest(self, name: ModelName, data: bytes) -> Digest:
        self.blobs.sync()
        with self.blobs.stage() as staged:
            staged.write_at(0, data)
            staged.replace(self.manifest_path(name))
        return digest_of(data)

    def _remove_empty_parents(self, path: Path) -> None:
        """Remove directories that became empty, up to `manifests/` itself, as Ollama does."""
        for parent in list(path.parents)[:_MANIFEST_DEPTH]:
            try:
                parent.rmdir()
            except OSError:
                return

    def _manifest_files(self) -> Iterator[tuple[Path, ModelName]]:
        for path in sorted(_files_at_depth(self.manifests, _MANIFEST_DEPTH)):
            host, namespace, model, tag = path.relative_to(self.manifests).parts
            try:
                yield path, parse_name(f"{host}/{namespace}/{model}:{tag}")
            except InputError:
                continue  # not a model: Ollama skips such files as well


def _blobs_of(manifest: Manifest) -> set[Digest]:
    return {layer.digest for layer in (manifest.config, *manifest.layers)}


def _files_at_depth(directory: Path, depth: int) -> Iterator[Path]:
    """Regular files exactly `depth` levels down; links are followed, as Ollama's own listing does."""
    try:
        with os.scandir(directory) as entries:
            children = list(entries)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable_store(directory, error) from error
    for entry in children:
        if depth > 1 and entry.is_dir():
            yield from _files_at_depth(Path(entry.path), depth - 1)
        elif depth == 1 and entry.is_file():
            yield Path(entry.path)


def _load(path: Path, name: ModelName) -> StoredModel:
    try:
        modified_ns = path.stat().st_mtime_ns
        data = read_manifest_bytes(path)
        manifest = decode_manifest(data, path)
    except OSError as error:
        return StoredModel(name, path, 0, None, None, damage=error.strerror or "cannot be read")
    except ModelbuildError as error:
        return StoredModel(name, path, modified_ns, None, None, damage=error.message)
    return StoredModel(name, path, modified_ns, manifest, digest_of(data), listed_digest(data))
