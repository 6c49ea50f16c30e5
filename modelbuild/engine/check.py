"""Rebuilding from nothing and comparing: is what stands in the store what the recipe gives today?"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.engine.build import BuildRequest, LoadedPlan, build_plan, load_plan
from modelbuild.events import Emit
from modelbuild.plan.graph import ExportWork
from modelbuild.records import record
from modelbuild.store.state import State
from modelbuild.store.store import Store


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
    request.cache.mkdir(parents=True, exist_ok=True)
    store = Store(request.store)
    with tempfile.TemporaryDirectory(dir=request.cache, prefix="check-") as name:
        place = Path(name)
        for path in load_plan(request).plan.base_manifests:
            _lend_model(store, Store(place / "models"), path)
        options = replace(request.options, locks=request.cache)  # its conversions take turns with those of builds
        scratch = replace(request, store=place / "models", cache=place / "cache", lock="", options=options)
        state = State(scratch.cache)
        try:
            loaded = _without_outputs(load_plan(scratch, emit))
            build_plan(loaded, scratch, state, emit)
        finally:
            state.close()
        rebuilt = Store(scratch.store)
        return [
            Comparison(str(name), _digest(store, str(name)), _found(rebuilt, str(name))) for name in loaded.plan.models
        ]


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
