"""`modelbuild print`: the recipe with everything resolved, or where each of its values comes from."""

from __future__ import annotations

import json
from pathlib import Path

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.recipe_options import current_recipe_options, recipe_options


@click.command(name="print")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How.")
@click.option("--origins", is_flag=True, help="Show where every value comes from: file, line, column and variables.")
@recipe_options
@click.pass_context
def command(context: click.Context, recipe: Path, form: str, *, origins: bool) -> None:
    """Print RECIPE (default: recipe.yaml) without variables, inheritance and matrices.

    Building what is printed, saved beside RECIPE, makes the same models from the same actions.
    """
    from modelbuild.recipe.printing import origins_of, recipe_to_plain
    from modelbuild.recipe.resolve import load_with_sources
    from modelbuild.recipe.yaml_text import to_yaml

    loaded = load_with_sources(recipe, current_recipe_options(context))
    if origins:
        found = origins_of(loaded)
        if form == "json":
            click.echo(json.dumps([origin.to_json() for origin in found], indent=2, ensure_ascii=False))
        else:
            click.echo("\n".join(map(str, found)))
        return
    plain = recipe_to_plain(loaded.recipe)
    click.echo(to_yaml(plain) if form == "yaml" else json.dumps(plain, indent=2, ensure_ascii=False) + "\n", nl=False)
