"""Recipes as text to models, for tests of the language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from modelbuild.errors import ModelbuildError, Position, Problems, RecipeError
from modelbuild.recipe.options import LoadOptions
from modelbuild.recipe.resolve import load_recipe
from modelbuild.recipe.resolved import FileEntry, FromModel, FromName, FromPath, Recipe, ResolvedModel

NOWHERE = Position("", 0, 0)


class Recipes:
    """A directory in which recipes are written and resolved."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file and return its path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def load(
        self,
        text: str | bytes,
        *,
        name: str = "recipe.yaml",
        variables: Mapping[str, str] | None = None,
        overrides: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        roots: tuple[Path, ...] = (),
        write: bool = True,
    ) -> Recipe:
        """The recipe of a text; write: put it there first."""
        options = LoadOptions(tuple((variables or {}).items()), overrides, environment or {}, roots)
        return load_recipe(self.write(name, text) if write else self.root / name, options)

    def model(self, text: str | bytes, **options: object) -> ResolvedModel:
        """The only model of a text."""
        (model,) = self.load(text, **options).models  # type: ignore[arg-type]
        return model

    def models(self, text: str, **options: object) -> dict[str, ResolvedModel]:
        """The models of a text by id."""
        return {model.id: model for model in self.load(text, **options).models}  # type: ignore[arg-type]

    def errors(self, text: str | bytes, **options: object) -> list[str]:
        """What is wrong with a text: `line:col CODE message` each, with the file in front when it is another one."""
        name = str(options.get("name", "recipe.yaml"))
        try:
            self.load(text, **options)  # type: ignore[arg-type]
        except ModelbuildError as error:
            errors = error.errors if isinstance(error, Problems) else (error,)
            return [self._line(item, name) for item in errors]
        return []

    def _line(self, error: ModelbuildError, name: str) -> str:
        message = error.message.replace(f"{self.root}/", "").replace(str(self.root), ".")
        if not isinstance(error, RecipeError):
            return f"{error.code} {message}"
        path = error.position.path.replace(f"{self.root}/", "")
        place = "" if path == name else f"{path}:"
        return f"{place}{error.position.line}:{error.position.column} {error.code} {message}"

    def warnings(self, text: str | bytes, **options: object) -> list[str]:
        """What the recipe is warned about: `line:col message` each."""
        found = self.load(text, **options).warnings  # type: ignore[arg-type]
        return [f"{item.position.line}:{item.position.column} {item.message}" for item in found]


def without_positions(model: ResolvedModel) -> ResolvedModel:
    """The model as it would be if it stood nowhere, for comparing what recipes mean."""

    def moved(entries: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
        return tuple(replace(entry, position=NOWHERE) for entry in entries)

    base = model.base
    if isinstance(base, FromName | FromPath | FromModel):
        base = replace(base, position=NOWHERE)
    return replace(
        model,
        position=NOWHERE,
        key="",
        positions={},
        base=base,
        files=moved(model.files),
        adapters=moved(model.adapters),
        draft_files=moved(model.draft_files),
        tensor_types=tuple(replace(rule, position=NOWHERE) for rule in model.tensor_types),
        metadata={key: replace(value, position=NOWHERE) for key, value in model.metadata.items()},
        outputs=tuple(replace(output, position=NOWHERE) for output in model.outputs),
    )
