"""The Python API: everything the command line does, as functions with typed results.

Every function takes `store`, and those that build take `cache`, too; they default to the directories the command line
uses. All errors are `modelbuild.errors.ModelbuildError`. The functions are safe in several threads and processes at
once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.digest import Digest
from modelbuild.engine.archive import ArchivedModel, export_models, import_models
from modelbuild.engine.build import BuildRequest, LoadedPlan, build_recipe, load_plan
from modelbuild.engine.compare import Difference
from modelbuild.engine.compare import compare as compare_stored
from modelbuild.engine.create import CreateOptions, Status, create_model
from modelbuild.engine.describe import ModelDetails, ModelRow, describe_model, describe_models
from modelbuild.engine.executor import executor_named
from modelbuild.engine.facts import decide_all
from modelbuild.engine.run import run_plan
from modelbuild.engine.run_options import RunOptions
from modelbuild.engine.snapshot import find_unchanged, snapshot_key
from modelbuild.engine.stored import find_name
from modelbuild.engine.verify import Verification, verify_store
from modelbuild.errors import UsageError
from modelbuild.events import Emit, Event, ModelFinished, RunStarted, Warned, ignore_event
from modelbuild.formats.files import open_input
from modelbuild.formats.new_file import new_file
from modelbuild.model_name import parse_name
from modelbuild.places import default_cache, default_store, expanded, is_pruning
from modelbuild.plan.planner import make_plan
from modelbuild.plan.preview import ActionPreview, preview_actions
from modelbuild.recipe.documents import parse_recipe
from modelbuild.recipe.model_reader import PATH_STARTS
from modelbuild.recipe.options import LoadOptions
from modelbuild.recipe.request import parse_create_request
from modelbuild.recipe.resolve import resolve_recipe
from modelbuild.store.link_mode import LINK_MODES
from modelbuild.store.state import State
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.watch.loop import Round

#: A recipe: the path of a file, or its content as plain values (paths in it start from the current directory).
RecipeSource = str | os.PathLike[str] | Mapping[str, object]
Place = str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model that stands in the store after a build; is_new: this build wrote its manifest."""

    name: str
    digest: Digest
    size_bytes: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build did: its models in build order, and the ids of the actions that ran."""

    models: tuple[BuiltModel, ...]
    ran: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build.

    variables: of the recipe. overrides: as `--set` takes them. roots: directories the recipe may read besides its own.
    link: how an unchanged GGUF gets into the store ("auto", "reflink", "hard", "copy"). workers: cores that actions may
    use, None for all. force: run everything. keep_going: after an error go on with what does not depend on it.
    lock: "locked" or "update", see `build --locked`; for recipes in files only. rewrite_gguf: rewrite imported GGUF
    files as Ollama does. executor: as `build --executor`: "inline", "workers", or the address of a Dask scheduler.
    """

    variables: Mapping[str, str] | None = None
    overrides: Sequence[str] = ()
    roots: Sequence[str | os.PathLike[str]] = ()
    link: str = "auto"
    workers: int | None = None
    force: bool = False
    keep_going: bool = False
    lock: str = ""
    rewrite_gguf: bool = False
    executor: str = "inline"


_DEFAULTS = BuildOptions()


def build(
    recipe: RecipeSource,
    models: Sequence[str] = (),
    *,
    options: BuildOptions = _DEFAULTS,
    store: Place = None,
    cache: Place = None,
    on_event: Callable[[Event], None] = ignore_event,
) -> BuildResult:
    """Build what is missing of a recipe's models, or only of `models` (keys, names or groups).

    on_event gets what happens, as `modelbuild.events` describes it, in the calling thread.
    Raises ModelbuildError; models that were finished before the error stay.
    """
    request = _request(recipe, models, options, store, cache)
    collected = _Collector(on_event)
    with _state(request.cache) as state:
        if isinstance(recipe, Mapping):
            loaded = _load(recipe, request, collected)
            summary = run_plan(loaded.plan, _store(request), state, collected, request.options)
            return collected.result(summary.ran)
        unchanged = None if options.force or options.lock else _find_unchanged(state, request)
        if unchanged is not None:
            return BuildResult(unchanged, ())
        return collected.result(build_recipe(request, state, collected).ran)


def preview(
    recipe: RecipeSource,
    models: Sequence[str] = (),
    *,
    options: BuildOptions = _DEFAULTS,
    store: Place = None,
    cache: Place = None,
) -> list[ActionPreview]:
    """What a build would do: each action, whether it runs and why, bytes to read and write, types of tensors."""
    request = _request(recipe, models, options, store, cache)
    loaded = _load(recipe, request, ignore_event)
    with _state(request.cache) as state:
        decisions = decide_all(loaded.plan, _store(request), state, force=options.force)
    return preview_actions(decisions, _store(request))


def watch_recipe(
    recipe: str | os.PathLike[str],
    models: Sequence[str] = (),
    *,
    options: BuildOptions = _DEFAULTS,
    store: Place = None,
    cache: Place = None,
    on_round: Callable[[Round], None],
    on_event: Callable[[Event], None] = ignore_event,
    rounds: int | None = None,
) -> None:
    """Build, and build again after every save, until interrupted or for a number of rounds.

    on_round gets what each round did; an error of a build is in it and does not end the loop.
    """
    from modelbuild.watch.loop import WatchLoop

    request = _request(recipe, models, options, store, cache)
    with _state(request.cache) as state:
        WatchLoop(request, state, on_event, on_round).run(rounds=rounds)


def create(
    request: Mapping[str, object] | bytes,
    *,
    rewrite_gguf: bool = False,
    store: Place = None,
    cache: Place = None,
    on_status: Callable[[Status], None] | None = None,
) -> BuiltModel:
    """Carry out a request of Ollama's `POST /api/create`; blobs that it names must stand in the store.

    Raises `modelbuild.recipe.request.RequestError`, which has the HTTP status and the text of the answer.
    """
    body = request if isinstance(request, bytes) else _as_json(request, "request")
    wanted = parse_create_request(body)
    target = Store(_place(store, default_store), prune=is_pruning())
    collected = _Collector(ignore_event)
    with _state(_place(cache, default_cache)) as state:
        report = on_status or _ignore_status
        create_model(wanted, target, state, report, CreateOptions(rewrite_gguf=rewrite_gguf), collected)
    return collected.models[-1]


def list_models(*, store: Place = None) -> list[ModelRow]:
    """One row for every model of the store, sorted by name; a damaged one says so in `damage`."""
    return describe_models(Store(_place(store, default_store)))


def show(name: str, *, store: Place = None) -> ModelDetails:
    """Everything about one model of the store."""
    target = Store(_place(store, default_store))
    return describe_model(target, find_name(target, name))


def copy(source: str, target: str, *, store: Place = None) -> None:
    """Give a model a second name."""
    place = Store(_place(store, default_store), prune=is_pruning())
    place.copy(find_name(place, source), place.spelling(parse_name(target)))


def remove(*names: str, store: Place = None) -> int:
    """Remove models and the blobs that no other model uses; returns the bytes freed. All names are checked first."""
    place = Store(_place(store, default_store))
    return sum(place.remove(name).freed_bytes for name in [find_name(place, text) for text in names])


def verify(*names: str, store: Place = None) -> Verification:
    """Hash every blob of these models, or of all, and compare it with its name."""
    place = Store(_place(store, default_store))
    return verify_store(place, [find_name(place, text) for text in names])


def compare(old: str, new: str, *, data: bool = True, store: Place = None) -> list[Difference]:
    """What differs between two models, or two GGUF files; without `data` no weights are read."""
    return compare_stored(Store(_place(store, default_store)), old, new, data=data)


def export_archive(names: Sequence[str], path: str | os.PathLike[str], *, store: Place = None) -> list[ArchivedModel]:
    """Write models into an archive; the same models give the same bytes."""
    place = Store(_place(store, default_store))
    with new_file(Path(path)) as target:
        return export_models(place, [find_name(place, name) for name in names], target)


def import_archive(path: str | os.PathLike[str], *, force: bool = False, store: Place = None) -> list[ArchivedModel]:
    """Take over the models of an archive; `force` replaces models of the same name that differ."""
    place = Store(_place(store, default_store), prune=is_pruning())
    with open_input(Path(path)) as source, open(source.fd, "rb", closefd=False) as stream:
        return import_models(place, stream, force=force)


class _Collector:
    """Passes events on and keeps what the result is made of."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.models: list[BuiltModel] = []
        self._warnings: list[str] = []
        self._order: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, RunStarted):
            self._order = {name: place for place, name in enumerate(event.models)}
        elif isinstance(event, ModelFinished):
            is_new = event.outcome == "built"
            self.models.append(BuiltModel(event.model, Digest(event.digest), event.size_bytes, is_new))
        elif isinstance(event, Warned):
            self._warnings.append(event.message)
        self._emit(event)

    def result(self, ran: tuple[str, ...]) -> BuildResult:
        """The result of a build: models in the order of the plan, whichever of them workers ended first."""
        models = sorted(self.models, key=lambda model: self._order.get(model.name, 0))
        return BuildResult(tuple(models), ran, tuple(self._warnings))


def _request(
    recipe: RecipeSource, models: Sequence[str], options: BuildOptions, store: Place, cache: Place
) -> BuildRequest:
    _check_choice("link", options.link, LINK_MODES)
    _check_choice("lock", options.lock, ("", "locked", "update"))
    if options.lock and isinstance(recipe, Mapping):
        raise UsageError("VALUE", "a recipe of plain values has no recipe.lock", hint="write the recipe to a file")
    path = Path.cwd() / "recipe.json" if isinstance(recipe, Mapping) else Path(recipe)
    return BuildRequest(
        path,
        _place(store, default_store),
        _place(cache, default_cache),
        tuple(models),
        RunOptions(
            options.link,
            options.force,
            options.workers,
            options.keep_going,
            executor=executor_named(options.executor),
        ),
        is_pruning(),
        options.lock,
        LoadOptions(
            tuple((options.variables or {}).items()),
            tuple(options.overrides),
            os.environ,
            tuple(map(expanded, options.roots)),
            options.rewrite_gguf,
        ),
    )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError("UNKNOWN", f"{name} is {value!r}", hint=f"{', '.join(map(repr, choices))} are possible")


def _load(recipe: RecipeSource, request: BuildRequest, emit: Emit) -> LoadedPlan:
    if not isinstance(recipe, Mapping):
        return load_plan(request, emit)
    started_ns = time.time_ns()
    node = parse_recipe(_as_json(recipe, "recipe"), request.recipe)
    resolved = resolve_recipe(node, request.recipe, request.recipe_options)
    for warning in resolved.warnings:
        emit(Warned(str(warning)))
    return LoadedPlan(resolved, make_plan(resolved, _store(request), request.wanted), started_ns)


def _as_json(values: Mapping[str, object], what: str) -> bytes:
    """Plain values as a document; UsageError VALUE for one that a document cannot hold."""
    try:
        return json.dumps(dict(values), allow_nan=False, default=_path_text).encode()
    except (TypeError, ValueError, RecursionError) as error:
        hint = "texts, numbers, true, false, null, lists, dictionaries and paths are possible"
        raise UsageError(
            "VALUE", f"the {what} holds a value that cannot be written down: {error}", hint=hint
        ) from error


def _path_text(value: object) -> str:
    """A path object as a recipe writes it: with ./ in front unless it starts elsewhere."""
    if not isinstance(value, os.PathLike):
        raise TypeError(f"{type(value).__name__} {value!r}")
    text = os.fspath(value)
    return text if text.startswith(PATH_STARTS) else f"./{text}"


def _find_unchanged(state: State, request: BuildRequest) -> tuple[BuiltModel, ...] | None:
    key = snapshot_key(request.recipe, request.store, request.wanted, request.recipe_options.fingerprint())
    found = find_unchanged(state, key)
    if found is None:
        return None
    return tuple(BuiltModel(item.name, Digest(item.digest), item.size_bytes, False) for item in found[0])


def _ignore_status(status: Status) -> None:
    del status


def _store(request: BuildRequest) -> Store:
    return Store(request.store, prune=request.prune)


def _place(given: Place, default: Callable[[], Path]) -> Path:
    return (default() if given is None else expanded(given)).absolute()


@contextmanager
def _state(cache: Path) -> Iterator[State]:
    state = State(cache)
    try:
        yield state
    finally:
        state.close()


__all__ = [
    "BuildOptions",
    "BuildResult",
    "BuiltModel",
    "build",
    "compare",
    "copy",
    "create",
    "export_archive",
    "import_archive",
    "list_models",
    "preview",
    "remove",
    "show",
    "verify",
    "watch_recipe",
]
