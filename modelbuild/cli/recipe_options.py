"""Options of every command that reads a recipe: variables, fields to override, directories it may read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from modelbuild.errors import UsageError, printable
from modelbuild.places import expanded
from modelbuild.recipe.options import LoadOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])
_KEY = "modelbuild.recipe_options"
#: Directories that recipes may read, separated like PATH: the user's configuration.
ROOTS_VARIABLE = "MODELBUILD_ALLOW_ROOT"


def recipe_options(command: _Command) -> _Command:
    """Add `--var`, `--set`, `--allow-root` and `--rewrite-gguf`; `current_recipe_options` gives what they say."""
    for option in (
        click.option("--var", "assignments", multiple=True, metavar="NAME=VALUE", callback=_keep, expose_value=False,
                     help="Give a variable of the recipe a value."),
        click.option("--set", "overrides", multiple=True, metavar="MODEL.FIELD=VALUE", callback=_keep,
                     expose_value=False, help="Replace a field (MODEL *: of all); VALUE is YAML."),
        click.option("--allow-root", "roots", multiple=True, metavar="DIR", callback=_keep, expose_value=False,
                     help=f"Read files below DIR, too [{ROOTS_VARIABLE}]."),
        click.option("--rewrite-gguf", "rewriting", is_flag=True, callback=_keep, expose_value=False,
                     help="Rewrite GGUF files as Ollama does; new digests."),
    ):  # fmt: skip
        command = option(command)
    return command


def current_recipe_options(context: click.Context) -> LoadOptions:
    """What the options of the running command say; UsageError for a `--var` without '='."""
    said = context.meta.get(_KEY, {})
    roots = [*said.get("roots", ()), *filter(None, os.environ.get(ROOTS_VARIABLE, "").split(os.pathsep))]
    return LoadOptions(
        variables=tuple(map(_split, said.get("assignments", ()))),
        overrides=tuple(said.get("overrides", ())),
        environment=os.environ,
        roots=tuple(map(expanded, roots)),
        rewrite_gguf=bool(said.get("rewriting")),
    )


def complete_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completion of MODELS by what the recipe on the line has."""
    del parameter
    from modelbuild.cli.complete_names import names_in_recipe

    names = names_in_recipe(Path(context.params["recipe"]), current_recipe_options(context))
    return [name for name in names if name.startswith(incomplete)]


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(
            "USAGE", f"--var {printable(text)}: NAME=VALUE is expected", hint="for example --var owner=acme"
        )
    return name, value


def _keep(context: click.Context, parameter: click.Parameter, value: tuple[str, ...] | bool) -> None:
    context.meta.setdefault(_KEY, {})[parameter.name] = value
