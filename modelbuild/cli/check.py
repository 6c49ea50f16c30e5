"""`modelbuild check`: rebuild from nothing and compare with what stands in the store."""

from __future__ import annotations

from pathlib import Path

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.executor_options import current_executor_options, executor_options
from modelbuild.cli.recipe_options import complete_models, current_recipe_options, recipe_options
from modelbuild.cli.render import choose_renderer
from modelbuild.cli.settings import current_settings, settings_options


@click.command(name="check")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
@click.argument("models", nargs=-1, shell_complete=complete_models)
@executor_options
@recipe_options
@settings_options
@click.pass_context
def command(context: click.Context, recipe: Path, models: tuple[str, ...]) -> int:
    """Build RECIPE (default: recipe.yaml) anew in a scratch store, and say whether the stored models are the same."""
    from modelbuild.engine.build import BuildRequest
    from modelbuild.engine.check import rebuild_and_compare
    from modelbuild.events import ignore_event

    settings = current_settings(context)
    emit = choose_renderer(settings.progress) if settings.progress == "json" else ignore_event
    rows = rebuild_and_compare(
        BuildRequest(
            recipe,
            settings.store,
            settings.cache,
            models,
            current_executor_options(context).to_run_options(),
            recipe_options=current_recipe_options(context),
        ),
        emit,
    )
    for row in rows:
        if row.stored is None:
            click.echo(f"{row.model}: not in the store; it would be {row.rebuilt}")
        else:
            click.echo(
                f"{row.model}: {'the same' if row.is_same else f'differs: {row.stored} stored, {row.rebuilt} now'}"
            )
    return 0 if all(row.is_same for row in rows) else 1
