"""Rebuilding from nothing and comparing: is what stands in the store what the recipe gives today?"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.engine.build import BuildRequest, LoadedPlan, build_plan, load_plan
from modelbuild.events import Emit
from modelbuild.plan.graph import ExportWork
from modelbuild.records import record
from modelbuild.store.lock import own_directory, share_directory
from modelbuild.store.state import State
from modelbuild.store.store import Store

_PREFIX = "check-"
#: A directory as young as this may not have been locked yet by the check that has just made it.
_UNLOCKED_S = 60.0


@record
class Comparison:
    """The digest of a model's manifest in the store (None when it is not there) and as built anew."""

    model: str
    stored: Digest | None
    rebuilt: Digest

    @property
    def is_same(self) -> bool:
        """Do they agree?"""
        return self.stored == self.rebuilt


def rebuild_and_compare(request: BuildRequest, emit: Emit) -> list[Comparison]:
    """Build the wanted models in a scratch store without any record, and compare manifests.

    The scratch store stands in the cache directory and is removed again; stored bases are linked into it.
    """
    store = Store(request.store)
    with _scratch_place(request.cache) as place:
        for path in load_plan(request).plan.base_manifests:
            _lend_model(store, Store(place / "models"), path)
        options = replace(request.options, locks=request.cache)  # its conversions take turns with those of builds
        scratch = replace(request, store=place / "models", cache=place / "cache", lock="", options=options)
        with closing(State(scratch.cache)) as state:
            loaded = _without_outputs(load_plan(scratch, emit))
            build_plan(loaded, scratch, state, emit)
        rebuilt = Store(scratch.store)
        return [
            Comparison(str(name), _digest(store, str(name)), _found(rebuilt, str(name))) for name in loaded.plan.models
        ]


@contextmanager
def _scratch_place(cache: Path) -> Iterator[Path]:
    """A directory for one check, as large as its models; those that killed checks have left go first."""
    cache.mkdir(parents=True, exist_ok=True)
    for path in cache.glob(f"{_PREFIX}*"):
        with suppress(OSError), own_directory(path) as is_left:
            if is_left and time.time() - path.stat().st_mtime > _UNLOCKED_S:
                shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=_PREFIX) as name, share_directory(Path(name)):
        yield Path(name)


def _without_outputs(loaded: LoadedPlan) -> LoadedPlan:
    """The plan without files beside the store: a check must not touch them."""
    actions = tuple(action for action in loaded.plan.actions if not isinstance(action.work, ExportWork))
    return replace(loaded, plan=replace(loaded.plan, actions=actions))


def _lend_model(store: Store, scratch: Store, manifest_path: Path) -> None:
    """Put a stored model into the scratch store: its manifest copied, its blobs linked where that is possible."""
    target = scratch.manifests / manifest_path.relative_to(store.manifests)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(manifest_path, target)
    scratch.blobs.prepare()
    for model in scratch.models():
        layers = () if model.manifest is None else (model.manifest.config, *model.manifest.layers)
        for layer in layers:
            source, copy = store.blobs.path(layer.digest), scratch.blobs.path(layer.digest)
            if not copy.exists():
                _link_or_copy(source, copy)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        with suppress(FileNotFoundError):
            shutil.copyfile(source, target)


def _digest(store: Store, name: str) -> Digest | None:
    from modelbuild.model_name import parse_name

    found = store.find(store.spelling(parse_name(name)))
    return None if found is None else found[1]


def _found(store: Store, name: str) -> Digest:
    digest = _digest(store, name)
    if digest is None:
        raise AssertionError(f"{name} was built and is not there")
    return digest
