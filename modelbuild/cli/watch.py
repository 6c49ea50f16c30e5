"""`modelbuild watch`: build, then build again after every save."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.recipe_options import current_recipe_options, recipe_options
from modelbuild.cli.render import choose_renderer
from modelbuild.cli.settings import current_settings, is_pruning, settings_options
from modelbuild.events import ActionProgress, Event, Warned
from modelbuild.store.state import State

if TYPE_CHECKING:
    from modelbuild.watch.loop import Round


@click.command(name="watch")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
@click.argument("models", nargs=-1)
@click.option("--exec", "command_line", metavar="CMD", help="Run CMD after every build that changed a model; "
              "MODELBUILD_MODELS holds the names.")  # fmt: skip
@click.option("--poll", is_flag=True, help="Look for changes regularly instead of being told by the system.")
@click.option("--verbose", "-v", is_flag=True, help="Show everything that a build shows.")
@recipe_options
@settings_options
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    models: tuple[str, ...],
    command_line: str | None,
    *,
    poll: bool,
    verbose: bool,
) -> None:
    """Build RECIPE (default: recipe.yaml) or only MODELS of it, and again whenever something they need is saved."""
    from modelbuild.engine.build import BuildRequest
    from modelbuild.watch.loop import WatchLoop, WatchOptions

    settings = current_settings(context)
    emit = choose_renderer(settings.progress)
    state = State(settings.cache)

    def show_round(done: Round) -> None:
        if settings.progress not in ("json", "quiet"):
            click.echo(_line(done), err=True)
        if command_line and not done.failure and done.built:
            subprocess.run(  # noqa: S602 - the user's own command line
                command_line, shell=True, check=False, env=os.environ | {"MODELBUILD_MODELS": " ".join(done.built)}
            )

    def show_event(event: Event) -> None:
        if verbose or settings.progress == "json" or isinstance(event, Warned | ActionProgress):
            emit(event)

    request = BuildRequest(
        recipe,
        settings.store,
        settings.cache,
        models,
        prune=is_pruning(),
        recipe_options=current_recipe_options(context),
    )
    try:
        WatchLoop(request, state, show_event, show_round, WatchOptions(poll=poll)).run()
    finally:
        state.close()


def _line(done: Round) -> str:
    names = ", ".join(sorted({path.name for path in done.changed})[:3]) or "start"
    if done.failure:
        return f"{names}: {done.failure}"
    if not done.built:
        return f"{names}: nothing to do, {len(done.models)} models up to date, {done.seconds:.2f} s"
    return f"{names}: {', '.join(done.built)} built, {done.ran} actions, {done.seconds:.2f} s"
