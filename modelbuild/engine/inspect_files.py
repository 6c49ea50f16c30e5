"""What a build would make of a source: the planner's own answer for a model that has nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modelbuild.engine.inspection import PlannedFile
from modelbuild.errors import ModelbuildError, Position, ProblemCollector, RecipeError
from modelbuild.formats.files import size_of_file
from modelbuild.model_name import parse_name
from modelbuild.plan.assembly import Assembly, Conversions, prepare_assembly
from modelbuild.plan.graph import Action, AssembleWork, ImportWork
from modelbuild.plan.model_weights import WeightsPlanner
from modelbuild.plan.preview import source_files
from modelbuild.recipe.resolved import FromPath, ResolvedModel
from modelbuild.store.store import Store

#: Types that people choose, the source's own precision first.
COMMON_TYPES = ("", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")


class PlannedSource:
    """The actions for one source, with their assemblies; what was planned for one type serves the others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._conversions: Conversions = {}
        self._store = Store(Path(os.devnull))
        #: What would end a build, each once.
        self.problems: list[ModelbuildError] = []
        self.notes: tuple[str, ...] = ()
        #: The text model as it is, when it is converted or rewritten.
        self.assembly: Assembly | None = None

    def files(self, types: Sequence[str] = COMMON_TYPES) -> list[PlannedFile]:
        """All files for each type, each once; what one type needs beyond the first is a remark, not a problem."""
        found: list[PlannedFile] = []
        for quantize in types:
            problems = ProblemCollector()
            with problems.collect():
                seen = {(item.layer, item.title) for item in found}
                found += [item for item in self._files_of(quantize) if (item.layer, item.title) not in seen]
            if not problems.errors:
                continue
            errors = [_without_place(error) for error in problems.errors]
            if quantize == types[0]:
                self.problems += errors
            else:
                self.notes += tuple(f"{error.message}; {error.hint}" for error in errors)
            break
        return found

    def _files_of(self, quantize: str) -> list[PlannedFile]:
        position = Position(str(self._path), 1, 1)
        model = ResolvedModel("", parse_name("inspected"), position, FromPath(self._path, position), quantize=quantize)
        registry = _Actions(self._store)
        planner = WeightsPlanner(registry, model, model.name)
        planner.add_files()
        planned = [self._planned(slot.kind, registry.action(slot.action), quantize) for slot in planner.slots]
        return [replace(item, title=item.title.replace(str(model.name), self._path.name)) for item in planned]

    def _planned(self, layer: str, action: Action, quantize: str) -> PlannedFile:
        work = action.work
        if isinstance(work, ImportWork):
            return PlannedFile(layer, action.title, "", size_of_file(work.path))
        if not isinstance(work, AssembleWork):
            raise AssertionError(f"{action.id} makes no weights")
        assembly = prepare_assembly(work, source_files(action, self._store) or (), self._conversions)
        if layer == "model" and self.assembly is None:
            self.assembly = assembly
        self.notes = tuple(dict.fromkeys((*self.notes, *assembly.notes)))
        return PlannedFile(layer, action.title, quantize if layer == "model" else "", assembly.layout.file_size)


class _Actions:
    """A registry that forgets nothing and stands in no store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.directories: list[Path] = []
        self._actions: dict[str, Action] = {}

    def add_action(self, action: Action) -> None:
        """Add an action."""
        self._actions[action.id] = action

    def action(self, action_id: str) -> Action:
        """The action of that id."""
        return self._actions[action_id]


def _without_place(error: ModelbuildError) -> ModelbuildError:
    """The file's own error instead of that of the recipe that is not there."""
    cause = error.__cause__
    return cause if isinstance(error, RecipeError) and isinstance(cause, ModelbuildError) else error
