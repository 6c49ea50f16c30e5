"""`modelbuild plan`: what a build would do, and why; changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.decisions import decided
from modelbuild.cli.recipe_options import complete_models, recipe_options
from modelbuild.cli.render import format_size
from modelbuild.cli.settings import current_settings, settings_options

if TYPE_CHECKING:
    from modelbuild.engine.estimate import Cost
    from modelbuild.plan.preview import ActionPreview

EXIT_WORK_PENDING = 3


@click.command(name="plan")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
@click.argument("models", nargs=-1, shell_complete=complete_models)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per action.")
@click.option("--tensors", is_flag=True, help="Every tensor's type, and the rule that chose it.")
@click.option("--exit-code", is_flag=True, help="Exit with 3 when there is something to do.")
@recipe_options
@settings_options
@click.pass_context
def command(
    context: click.Context,
    recipe: Path,
    models: tuple[str, ...],
    *,
    as_json: bool,
    tensors: bool,
    exit_code: bool,
) -> int:
    """Show what building RECIPE (default: recipe.yaml) would do, action by action, and why."""
    from modelbuild.engine.estimate import cost_of, experience_of
    from modelbuild.engine.run_log import stored_runs
    from modelbuild.plan.preview import preview_actions
    from modelbuild.store.staged import free_space

    settings = current_settings(context)
    with decided(context, recipe, models) as found:
        previews = preview_actions(found.decisions, found.store)
    experience = experience_of(stored_runs(settings.cache))
    for preview in previews:
        seconds = experience.expected_seconds(preview) if preview.runs else None
        if as_json:
            click.echo(json.dumps(preview.to_json(tensors=tensors) | {"expected_seconds": seconds}))
        else:
            click.echo(_line(preview, seconds, tensors=tensors))
    pending = sum(preview.runs for preview in previews)
    if not as_json:
        click.echo(f"{pending} to run, {len(previews) - pending} up to date")
        if pending:
            click.echo(_cost_line(cost_of(previews, experience), free_space(settings.store)))
    return EXIT_WORK_PENDING if exit_code and pending else 0


def _cost_line(cost: Cost, free_bytes: int) -> str:
    disk = f"at most {format_size(cost.needed_bytes)} of disk needed, {format_size(free_bytes)} free"
    if cost.seconds is None:
        return f"{disk}; no earlier run tells how long it takes"
    return f"{disk}; {'about' if cost.is_complete else 'at least'} {cost.seconds:.1f} s, going by earlier runs"


def _line(preview: ActionPreview, seconds: float | None, *, tensors: bool) -> str:
    state = "run   " if preview.runs else "shared" if preview.made_by else "cached"
    head = f"{state}  {preview.title}"
    if preview.write_bytes is not None and preview.runs:
        expected = "" if seconds is None else f", about {seconds:.1f} s"
        head += f"  (reads {format_size(preview.read_bytes or 0)}, writes {format_size(preview.write_bytes)}{expected})"
    reasons = [f"made by {preview.made_by}"] if preview.made_by else preview.reasons
    lines = [head, *(f"          {reason}" for reason in reasons)]
    if tensors:
        lines += [f"          {row.name}  {row.source_type} → {row.type}  {row.rule}" for row in preview.tensors]
    return "\n".join(lines)
