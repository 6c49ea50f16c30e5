"""`modelbuild graph`: the actions of a recipe as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.recipe_options import complete_models, current_recipe_options, recipe_options
from modelbuild.cli.settings import current_settings, settings_options
from modelbuild.store.state import State


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
    from modelbuild.engine.facts import decide_all
    from modelbuild.plan.drawing import draw_plan
    from modelbuild.plan.planner import make_plan
    from modelbuild.recipe.resolve import load_recipe
    from modelbuild.store.store import Store

    settings = current_settings(context)
    store, state = Store(settings.store), State(settings.cache)
    try:
        resolved = load_recipe(recipe, current_recipe_options(context))
        decisions = decide_all(make_plan(resolved, store, models), store, state)
    finally:
        state.close()
    click.echo(draw_plan(decisions, style), nl=False)
