"""Is every blob what its name says? Reads all of them, and can put right what a recipe can make again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.errors import ModelbuildError
from modelbuild.formats.files import open_input
from modelbuild.formats.hashing import digest_of_file
from modelbuild.model_name import ModelName
from modelbuild.records import record
from modelbuild.store.manifest import Layer
from modelbuild.store.store import Store

#: Told about each blob before it is read: its digest and its size in bytes.
Reading = Callable[[Digest, int], None]


@record
class Damage:
    """Something in the store that is not as it should be.

    what: in words. digest: of the blob, None when it is a manifest. models: that need it. inode: of a blob that other
    file names share (a hard link), 0 otherwise: editing the other file is then the likely cause.
    """

    what: str
    path: Path
    digest: Digest | None
    models: tuple[str, ...]
    inode: int = 0

    def to_json(self) -> dict[str, object]:
        """The damage as a JSON object."""
        return {
            "what": self.what,
            "path": str(self.path),
            "digest": self.digest,
            "models": list(self.models),
            "shared_inode": self.inode or None,
        }


@record
class Verification:
    """What was read and what was found."""

    models: int
    blobs: int
    size_bytes: int
    damages: tuple[Damage, ...]

    @property
    def is_sound(self) -> bool:
        """Is everything as it should be?"""
        return not self.damages


def verify_store(store: Store, names: Sequence[ModelName] = (), reading: Reading | None = None) -> Verification:
    """Hash every blob of the given models, or of all; each blob is read once."""
    damages: list[Damage] = []
    users: dict[Layer, list[str]] = {}
    models = [model for model in store.models() if not names or model.name in names]
    for model in models:
        if model.manifest is None:
            damages.append(Damage(model.damage, model.path, None, (str(model.name),)))
            continue
        for layer in (model.manifest.config, *model.manifest.layers):
            users.setdefault(Layer("", layer.digest, layer.size_bytes), []).append(str(model.name))
    for layer, needing in users.items():
        if reading is not None:
            reading(layer.digest, layer.size_bytes)
        damages += _damage_of(store, layer, tuple(dict.fromkeys(needing)))
    return Verification(len(models), len(users), sum(layer.size_bytes for layer in users), tuple(damages))


@contextmanager
def set_aside(store: Store, damages: Iterable[Damage]) -> Iterator[None]:
    """Take damaged blobs out of the way for the time of a build; those that it did not make again come back."""
    with ExitStack() as stack:
        for digest in dict.fromkeys(item.digest for item in damages):
            if digest is not None:
                stack.enter_context(store.blobs.set_aside(digest))
        yield


def _damage_of(store: Store, layer: Layer, models: tuple[str, ...]) -> Iterator[Damage]:
    path = store.blobs.path(layer.digest)
    try:
        size_bytes = store.blobs.size_of(layer.digest)
        if size_bytes is None:
            yield Damage("missing, or no regular file", path, layer.digest, models)
            return
        with open_input(path) as source:
            inode = source.stat.st_ino if source.stat.st_nlink > 1 else 0
            if size_bytes != layer.size_bytes:
                yield Damage(f"{size_bytes:,} bytes, {layer.size_bytes:,} expected", path, layer.digest, models, inode)
            elif digest_of_file(source) != layer.digest:
                yield Damage("its content is not what its name says", path, layer.digest, models, inode)
    except ModelbuildError as error:
        yield Damage(error.message, path, layer.digest, models)
