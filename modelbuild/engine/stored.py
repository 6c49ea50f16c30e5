"""Finding stored models by the names people type."""

from __future__ import annotations

from modelbuild.digest import Digest
from modelbuild.errors import InputError, printable
from modelbuild.formats.files import is_regular
from modelbuild.model_name import ModelName, parse_name
from modelbuild.recipe.reference import local_name
from modelbuild.similar_names import similar_models
from modelbuild.store.manifest import Manifest
from modelbuild.store.store import Store


def find_name(store: Store, text: str) -> ModelName:
    """The name of a stored model, spelt as on disk; InputError with near names when there is none.

    `m:local` means `m`, and a cloud reference the stub that stands for it. The manifest may be damaged.
    """
    name = store.spelling(_parsed(local_name(text)))
    if not is_regular(store.manifest_path(name)):
        raise _missing(store, name)
    return name


def _parsed(text: str) -> ModelName:
    try:
        return parse_name(text)
    except InputError as error:
        if text.startswith((".", "/", "~")):
            error.hint = "a name is expected; what stands at a path is told by 'modelbuild inspect PATH'"
        raise


def read_stored(store: Store, name: ModelName) -> tuple[Manifest, Digest]:
    """Manifest and digest of a model; InputError MANIFEST when it is missing or damaged."""
    found = store.find(name)
    if found is None:
        raise _missing(store, name)
    return found


def _missing(store: Store, name: ModelName) -> InputError:
    stored = [str(item.name) for item in store.models()]
    near = similar_models(str(name), stored)
    hint = f"did you mean {' or '.join(near)}?" if near else "see 'modelbuild list'"
    return InputError("MANIFEST", f"no model {printable(str(name))!r} in the store {store.root}", hint=hint)
