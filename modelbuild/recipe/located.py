"""Errors of readers, given a place in the recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from modelbuild.errors import InputError, Position, RecipeError, printable
from modelbuild.similar_names import similar_names

_T = TypeVar("_T")


def located(read: Callable[[], _T], position: Position) -> _T:
    """What a reader gives; the InputError it raises becomes a RecipeError at a position."""
    try:
        return read()
    except InputError as error:
        raise locate(error, position) from error


_OTHERWISE = "paths are relative to the file that they stand in"


def with_near_names(error: InputError, path: Path, otherwise: str = _OTHERWISE) -> InputError:
    """The error of a file that cannot be opened, with the names of files beside it that it may be meant for."""
    if error.code != "PATH" or error.hint:
        return error
    try:
        names = [entry.name for entry in path.parent.iterdir()]
        if path.name in names and path.is_symlink():
            names, otherwise = [], f"a link of this name is there, and leads to {printable(str(path.readlink()))}"
    except OSError:
        hint = f"there is no directory {printable(str(path.parent))}"
    else:
        near = similar_names(path.name, [name for name in names if name != path.name], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(printable, sorted(near)))}?" if near else ""
    hint = hint or otherwise
    return InputError(error.code, error.message, path=error.path, offset=error.offset, key=error.key, hint=hint)


def locate(error: InputError, position: Position) -> RecipeError:
    """The same error, at a position of the recipe."""
    message = f"{error.where}: {error.message}" if error.where else error.message
    return RecipeError(error.code, message, position, hint=error.hint)
