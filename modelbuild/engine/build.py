"""Building a recipe from its text to its manifests: the one function behind every door."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelbuild.engine.facts import WorldFacts
from modelbuild.engine.ledger import RunSummary
from modelbuild.engine.remembered_recipes import RememberedRecipes
from modelbuild.engine.run import run_plan
from modelbuild.engine.run_log import RecordedRun
from modelbuild.engine.run_options import RunOptions
from modelbuild.engine.snapshot import SnapshotModel, record_unchanged, snapshot_key
from modelbuild.events import Emit, Warned, ignore_event
from modelbuild.plan.graph import ExportWork, Plan
from modelbuild.plan.planner import make_plan
from modelbuild.recipe.documents import Parse, parse_recipe
from modelbuild.recipe.options import LoadOptions
from modelbuild.recipe.resolve import load_recipe
from modelbuild.recipe.resolved import Recipe
from modelbuild.records import record
from modelbuild.store.state import State
from modelbuild.store.store import Store


@record
class BuildRequest:
    """What to build and where.

    wanted: keys or names of models, all of the recipe when empty. prune: delete what a replaced model leaves behind.
    recipe_options: variables, overrides and directories that the recipe is read with.
    lock: "locked" refuses inputs and results that differ from recipe.lock, "update" writes it, "" leaves it alone.
    """

    recipe: Path
    store: Path
    cache: Path
    wanted: tuple[str, ...] = ()
    options: RunOptions = RunOptions()
    prune: bool = True
    lock: str = ""
    recipe_options: LoadOptions = LoadOptions()


@record
class LoadedPlan:
    """A recipe and its plan; started_ns is the time before the first input was read."""

    recipe: Recipe
    plan: Plan
    started_ns: int


def build_recipe(request: BuildRequest, state: State, emit: Emit = ignore_event) -> RunSummary:
    """Bring the wanted models up to date.

    Raises ModelbuildError; models that were finished before stay, no other manifest has changed then.
    """
    return build_plan(load_plan(request, emit, RememberedRecipes(state).parse), request, state, emit)


def load_plan(request: BuildRequest, emit: Emit = ignore_event, parse: Parse = parse_recipe) -> LoadedPlan:
    """Read the recipe and plan the wanted models; parse: what makes nodes of YAML and JSON."""
    started_ns = time.time_ns()
    recipe = load_recipe(request.recipe, request.recipe_options, parse)
    for warning in recipe.warnings:
        emit(Warned(str(warning)))
    return LoadedPlan(recipe, make_plan(recipe, Store(request.store, prune=request.prune), request.wanted), started_ns)


def build_plan(loaded: LoadedPlan, request: BuildRequest, state: State, emit: Emit = ignore_event) -> RunSummary:
    """Run a plan, keep its events, and remember that everything is up to date."""
    store = Store(request.store, prune=request.prune)
    inputs = _locked_inputs(loaded, request, store, state, emit)
    with RecordedRun(request.cache, emit) as recorded:
        summary = run_plan(loaded.plan, store, state, recorded, _run_options(request))
    if request.lock:
        _lock_models(loaded.plan, request, store, inputs)
    if not summary.is_outdated:
        _record_snapshot(request, loaded.recipe, loaded.plan, store, state, loaded.started_ns)
    return summary


def _run_options(request: BuildRequest) -> RunOptions:
    """The options of the request; a locked build publishes no model whose manifest differs from the lock."""
    if request.lock != "locked":
        return request.options
    from modelbuild.engine.lock_file import lock_path, read_lock, refuse_drift

    path = lock_path(request.recipe)
    models = read_lock(path).models
    return replace(request.options, approve=lambda name, digest: refuse_drift("model", models, {name: digest}, path))


def _locked_inputs(loaded: LoadedPlan, request: BuildRequest, store: Store, state: State, emit: Emit) -> dict[str, str]:
    """Digests of the inputs, where a lock wants them; DriftError before anything runs when one differs."""
    if not request.lock:
        return {}
    from modelbuild.engine.lock_file import input_digests, lock_path, read_lock, refuse_drift

    path = lock_path(request.recipe)
    inputs = input_digests(loaded.plan, WorldFacts(store, state), emit, request.recipe)
    if request.lock == "locked":
        refuse_drift("input", read_lock(path).inputs, inputs, path)
    return inputs


def _lock_models(plan: Plan, request: BuildRequest, store: Store, inputs: Mapping[str, str]) -> None:
    """Compare the results with the lock, or write them and the inputs into it."""
    from modelbuild.engine.lock_file import Lock, lock_path, model_digests, read_lock, refuse_drift, write_lock

    path = lock_path(request.recipe)
    models = model_digests(plan, store)
    if request.lock == "locked":
        refuse_drift("model", read_lock(path).models, models, path)
        return
    kept = read_lock(path) if request.wanted and path.exists() else Lock()
    write_lock(path, Lock({**kept.inputs, **inputs}, {**kept.models, **models}))


def _record_snapshot(
    request: BuildRequest, recipe: Recipe, plan: Plan, store: Store, state: State, started_ns: int
) -> None:
    blobs: set[Path] = set()
    models: list[SnapshotModel] = []
    for name in plan.models:
        found = store.find(name)
        if found is None:
            return
        manifest, digest = found
        blobs.update(store.blobs.path(layer.digest) for layer in (manifest.config, *manifest.layers))
        models.append(SnapshotModel(str(name), digest, manifest.size_bytes))
    own = [store.manifest_path(name) for name in plan.models]
    bases = [path for path in plan.base_manifests if path not in own]
    record_unchanged(
        state,
        snapshot_key(request.recipe, request.store, request.wanted, request.recipe_options.fingerprint()),
        inputs=[*recipe.files, *recipe.directories, *plan.input_files, *plan.watched_directories, *bases],
        manifests=own,
        blobs=blobs,
        models=models,
        actions=len(plan.actions),
        started_ns=started_ns,
        outputs=[action.work.path for action in plan.actions if isinstance(action.work, ExportWork)],
        environment=recipe.environment,
    )
