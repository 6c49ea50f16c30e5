"""`modelbuild build`: the no-op check first, because it is what happens most; then the planner and the engine."""

from __future__ import annotations

import time
from pathlib import Path

import click

from modelbuild.cli.executor_options import current_executor_options, executor_options
from modelbuild.cli.recipe_options import complete_models, current_recipe_options, recipe_options
from modelbuild.cli.render import choose_renderer
from modelbuild.cli.settings import Settings, current_settings, is_pruning, settings_options
from modelbuild.engine.snapshot import find_unchanged, snapshot_key
from modelbuild.events import Emit, ModelFinished, RunFinished, RunStarted
from modelbuild.recipe.options import LoadOptions
from modelbuild.store.link_mode import LINK_MODES
from modelbuild.store.state import State

DEFAULT_RECIPE = "recipe.yaml"


@click.command(name="build")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
@click.argument("models", nargs=-1, shell_complete=complete_models)
@click.option("--force", is_flag=True, help="Run every action, up to date or not.")
@click.option(
    "--link",
    type=click.Choice(LINK_MODES),
    default="auto",
    metavar="HOW",
    help="How GGUFs come in: auto, reflink, hard or copy.",
)
@click.option("--locked", "lock", flag_value="locked", help="Refuse what differs from recipe.lock.")
@click.option("--update-lock", "lock", flag_value="update", help="Write recipe.lock: digests of inputs and results.")
@click.option("--keep-going", "-k", is_flag=True, help="After an error, build what does not need it.")
@click.option("--allow-nonfinite", is_flag=True, help="Pack weights that are infinite or no numbers.")
@executor_options
@recipe_options
@settings_options
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    models: tuple[str, ...],
    *,
    force: bool,
    link: str,
    lock: str | None,
    keep_going: bool,
    allow_nonfinite: bool,
) -> None:
    """Build what is missing of the models of RECIPE (default: recipe.yaml), or only of MODELS."""
    settings, reading = current_settings(context), current_recipe_options(context)
    emit = choose_renderer(settings.progress)
    state = State(settings.cache)
    try:
        if not force and not lock and _show_unchanged(recipe, models, settings, reading, state, emit):
            return
        from dataclasses import replace

        from modelbuild.engine.build import BuildRequest, build_recipe

        options = replace(
            current_executor_options(context).to_run_options(),
            link=link,
            force=force,
            keep_going=keep_going,
            allow_nonfinite=allow_nonfinite,
        )
        request = BuildRequest(
            recipe, settings.store, settings.cache, models, options, is_pruning(), lock or "", reading
        )
        build_recipe(request, state, emit)
    finally:
        state.close()


def _show_unchanged(
    recipe: Path, models: tuple[str, ...], settings: Settings, reading: LoadOptions, state: State, emit: Emit
) -> bool:
    started_s = time.monotonic()
    found = find_unchanged(state, snapshot_key(recipe, settings.store, models, reading.fingerprint()))
    if found is None:
        return False
    unchanged, actions = found
    emit(RunStarted(tuple(model.name for model in unchanged), actions))
    for model in unchanged:
        emit(ModelFinished(model.name, "unchanged", model.digest, model.size_bytes))
    emit(RunFinished(0, actions, 0, time.monotonic() - started_s))
    return True
