"""Errors of input files, with the place in the recipe that named the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from modelbuild.errors import InputError, Position, RecipeError


@contextmanager
def located(position: Position) -> Iterator[None]:
    """Give errors of input files a place in the recipe; the error itself stays the cause."""
    try:
        yield
    except InputError as error:
        message = f"{error.where}: {error.message}" if error.where else error.message
        raise RecipeError(error.code, message, position, hint=error.hint) from error
