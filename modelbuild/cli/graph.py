"""`modelbuild graph`: the actions of a recipe as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.decisions import decided
from modelbuild.cli.recipe_options import complete_models, recipe_options
from modelbuild.cli.settings import settings_options


@click.command(name="graph")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
@click.argument("models", nargs=-1, shell_complete=complete_models)
@click.option("--format", "style", type=click.Choice(("mermaid", "dot", "json", "svg")), default="mermaid",
              metavar="FORMAT", help="mermaid, dot, json or svg [mermaid].")  # fmt: skip
@recipe_options
@settings_options
@click.pass_context
def command(context: click.Context, recipe: Path, models: tuple[str, ...], style: str) -> None:
    """Draw what building RECIPE (default: recipe.yaml) consists of; actions that would run stand out."""
    from modelbuild.plan.drawing import draw_plan

    with decided(context, recipe, models) as found:
        click.echo(draw_plan(found.decisions, style), nl=False)
