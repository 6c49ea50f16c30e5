"""The actions behind single GGUF layers: one that takes a file over as it is, one that makes a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from modelbuild.errors import RecipeError, printable
from modelbuild.formats.files import does_exist
from modelbuild.model_name import ModelName
from modelbuild.plan.action import FileInput, Input, Json, Kind
from modelbuild.plan.graph import COPY_PRESET, Action, AssembleWork, ImportWork
from modelbuild.plan.weights_files import file_input
from modelbuild.plan.wishes import IMATRIX_ROLE, Wishes
from modelbuild.recipe.resolved import FileEntry, ResolvedModel
from modelbuild.store.store import Store


class Registry(Protocol):
    """Where actions go, and what is known of those that are there."""

    store: Store
    directories: list[Path]

    def add_action(self, action: Action) -> None:
        """Add an action."""

    def action(self, action_id: str) -> Action:
        """The action of that id, which has been added."""


class WeightsActions:
    """Adds actions for the GGUF layers of one model, and tells their ids. `what`: the last part of an id."""

    def __init__(self, registry: Registry, model: ResolvedModel, name: ModelName) -> None:
        self._registry = registry
        self._store = registry.store
        self._model = model
        self._name = name

    def path_of(self, entry: FileEntry) -> Path:
        """Where the content of a file is; RecipeError MISSING when it is a blob that is not in the store."""
        if isinstance(entry.content, Path):
            return entry.content
        path = self._store.blobs.path(entry.content)
        if not does_exist(path):
            message = f"no blob {entry.content} in the store {self._store.root}"
            raise RecipeError("MISSING", message, entry.position, hint="give the path of the file instead of a digest")
        return path

    def take_over(self, what: str, entry: FileEntry) -> str:
        """A file as it is."""
        title, work = f"import {shown_name(entry.name)}", ImportWork(self.path_of(entry))
        return self._add(what, Kind.IMPORT, title, (file_input(entry, 0),), {}, work)

    def assemble_gguf(
        self,
        what: str,
        sources: Sequence[Input],
        preset: str,
        wishes: Wishes,
        *,
        keeps_embedded: bool = False,
        added: tuple[tuple[str, str], ...] = (),
    ) -> str:
        """A file made from GGUF files."""
        work = AssembleWork(
            None,
            str(self._name),
            preset,
            self._model.intermediate,
            keeps_embedded=keeps_embedded,
            added=added,
            allow_requantize=self._model.allow_requantize,
            wishes=wishes,
        )
        by_tensor = [replace(item, by_tensor=True) if isinstance(item, FileInput) else item for item in sources]
        return self.assemble(what, work, by_tensor)

    def assemble(self, what: str, work: AssembleWork, inputs: Sequence[Input]) -> str:
        """A file made as `work` says."""
        options: Mapping[str, Json] = {
            "preset": work.preset,
            "intermediate": work.intermediate,
            "pre_tokenizer": work.pre_tokenizer,
            "keeps_embedded": work.keeps_embedded,
            "part": work.part,
            "directory": _directory_name(work),
            "added": dict(work.added),
            **work.wishes.to_json(),
        }
        title = _title(work, len(inputs))
        if work.wishes.imatrix is not None:
            inputs = (*inputs, FileInput(IMATRIX_ROLE, work.wishes.imatrix))
        set_ones = {key: value for key, value in options.items() if value}
        return self._add(what, Kind.ASSEMBLE, title, tuple(inputs), set_ones, work)

    def _add(
        self,
        what: str,
        kind: Kind,
        title: str,
        inputs: tuple[Input, ...],
        options: Mapping[str, Json],
        work: ImportWork | AssembleWork,
    ) -> str:
        action = Action(f"{self._name}/{what}", kind, title, inputs, options, work)
        self._registry.add_action(action)
        return action.id


def shown_name(name: str) -> str:
    """A file's name in ids and titles, which terminals and pictures show; never cut, so that two stay two."""
    return printable(name, len(name))


def _title(work: AssembleWork, source_count: int) -> str:
    if work.checkpoint is not None:
        what = "convert adapter" if work.base else "convert projector of" if work.part else "convert"
        origin = shown_name(Path(work.origin).name)
    elif work.preset != COPY_PRESET:
        what, origin = "quantize", work.origin
    else:
        what, origin = "merge" if source_count > 1 else "rewrite", work.origin
    return f"{what} {origin}" if work.preset in ("", COPY_PRESET) else f"{what} {origin} to {work.preset}"


def _directory_name(work: AssembleWork) -> str:
    """The name of a checkpoint's directory, which becomes the name of the model where nothing else names it."""
    from modelbuild.convert.checkpoint import Checkpoint

    return "" if work.checkpoint is None else Checkpoint(work.checkpoint, work.origin).directory_name
