"""`modelbuild verify`: read every blob and compare it with its name."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.executor_options import current_executor_options, executor_options
from modelbuild.cli.render import choose_renderer, format_count, format_size
from modelbuild.cli.settings import current_settings, is_pruning, settings_options

if TYPE_CHECKING:
    from modelbuild.engine.verify import Damage, Verification
    from modelbuild.store.store import Store


@click.command(name="verify")
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_stored)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--repair", type=click.Path(path_type=Path), metavar="RECIPE",
              help="Build again, from this recipe, the models that have damaged blobs.")  # fmt: skip
@executor_options
@settings_options
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], *, as_json: bool, repair: Path | None) -> int:
    """Hash every blob of the models NAME, or of all, and compare it with its name; status 1 when one is damaged."""
    from modelbuild.engine.stored import find_name
    from modelbuild.engine.verify import verify_store
    from modelbuild.store.store import Store

    settings = current_settings(context)
    store = Store(settings.store)
    wanted = [find_name(store, text) for text in names]
    found = verify_store(store, wanted)
    if repair is not None and not found.is_sound:
        _repair(store, context, repair, found, "quiet" if as_json else settings.progress)
        found = verify_store(store, wanted)
    _show(found, as_json=as_json)
    return 0 if found.is_sound else 1


def _repair(store: Store, context: click.Context, recipe: Path, found: Verification, progress: str) -> None:
    """Build the damaged models that the recipe makes. progress: how that is shown."""
    from modelbuild.engine.build import BuildRequest, build_plan, load_plan
    from modelbuild.engine.verify import set_aside
    from modelbuild.store.state import State

    settings = current_settings(context)
    damaged = {name for damage in found.damages for name in damage.models}
    everything = BuildRequest(recipe, settings.store, settings.cache)
    planned = {str(name) for name in load_plan(everything).plan.models}
    wanted = tuple(sorted(damaged & planned))
    for name in sorted(damaged - planned):
        click.echo(f"note: {recipe} does not make {name}", err=True)
    if not wanted:
        return
    options = current_executor_options(context).to_run_options()
    request = BuildRequest(recipe, settings.store, settings.cache, wanted, options, is_pruning())
    with closing(State(settings.cache)) as state, set_aside(store, found.damages):
        emit = choose_renderer(progress)
        build_plan(load_plan(request, emit), request, state, emit)


def _show(found: Verification, *, as_json: bool) -> None:
    if as_json:
        record = {
            "models": found.models,
            "blobs": found.blobs,
            "size_bytes": found.size_bytes,
            "damages": [damage.to_json() for damage in found.damages],
        }
        click.echo(json.dumps(record, indent=2))
        return
    for damage in found.damages:
        click.echo(_describe(damage), err=True)
    counted = f"{format_count(found.models, 'model')}, {format_count(found.blobs, 'blob')}"
    counted += f", {format_size(found.size_bytes)} read"
    click.echo(f"{counted}: {'all sound' if found.is_sound else f'{len(found.damages)} damaged'}")


def _describe(damage: Damage) -> str:
    text = f"{damage.path}: {damage.what} (needed by {', '.join(damage.models)})"
    if damage.inode:
        text += f"\n  hint: another file is the same inode {damage.inode}; it was edited. Build with --link copy"
    return text
