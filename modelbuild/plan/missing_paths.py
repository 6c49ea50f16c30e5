"""Paths that a model names and where nothing is: all of them, before anything is made of those that are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelbuild.errors import InputError, Position, ProblemCollector
from modelbuild.formats.files import does_exist
from modelbuild.plan.located import located
from modelbuild.recipe.located import with_near_names
from modelbuild.recipe.resolved import FromPath, ResolvedModel

_ADVICE = "in a recipe, paths are relative to its directory"


def check_paths(model: ResolvedModel, problems: ProblemCollector) -> None:
    """Collect an error, with near names, for every source of a model that is not there."""
    for path, position in _sources_of(model):
        if not does_exist(path):
            with problems.collect(), located(position):
                raise with_near_names(InputError("PATH", "no such file or directory", path=path), path, _ADVICE)


def _sources_of(model: ResolvedModel) -> Iterator[tuple[Path, Position]]:
    if isinstance(model.base, FromPath):
        yield model.base.path, model.base.position
    for entry in (*model.files, *model.adapters, *model.draft_files):
        if isinstance(entry.content, Path):
            yield entry.content, entry.position
    if model.imatrix is not None:
        yield model.imatrix, model.positions.get("imatrix", model.position)
