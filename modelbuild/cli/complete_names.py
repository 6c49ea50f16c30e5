"""Completion of models' names in shells: `modelbuild show hel<TAB>`, `modelbuild build recipe.yaml hel<TAB>`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelbuild.cli.settings import current_settings
from modelbuild.errors import ModelbuildError

if TYPE_CHECKING:
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from modelbuild.recipe.options import LoadOptions


def complete_stored(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names in the store that begin so; none when the store cannot be read, because a prompt shows no errors."""
    del parameter
    from click.shell_completion import CompletionItem

    from modelbuild.store.store import Store

    try:
        names = [str(model.name) for model in Store(current_settings(context).store).models()]
    except (ModelbuildError, OSError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def names_in_recipe(path: Path, options: LoadOptions) -> list[str]:
    """What builds part of a recipe: keys, names and groups; none while it has mistakes, because a prompt shows none."""
    from modelbuild.recipe.resolve import load_recipe

    try:
        recipe = load_recipe(path, options)
    except (ModelbuildError, OSError):
        return []
    names = [*(name for model in recipe.models for name in (model.id, str(model.name))), *recipe.groups]
    return list(dict.fromkeys(filter(None, names)))
