"""`modelbuild explain`: for every action of some models, why it would run or since when it is up to date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.decisions import Decided, decided
from modelbuild.cli.recipe_options import complete_models, recipe_options
from modelbuild.cli.settings import settings_options
from modelbuild.errors import UsageError, printable
from modelbuild.formats.files import does_exist

if TYPE_CHECKING:
    from modelbuild.plan.decide import Decision


@click.command(name="explain")
@click.argument("models", nargs=-1, shell_complete=complete_models)
@click.option("--recipe", "-f", type=click.Path(path_type=Path), default=DEFAULT_RECIPE, show_default=True,
              help="The recipe.")  # fmt: skip
@click.option("--action", metavar="TEXT", default="", help="Only actions whose id contains TEXT.")
@click.option("--provenance", "as_statement", is_flag=True,
              help="Print an in-toto statement (SLSA provenance v1) for each model instead.")  # fmt: skip
@recipe_options
@settings_options
@click.pass_context
def command(context: click.Context, models: tuple[str, ...], recipe: Path, action: str, *, as_statement: bool) -> None:
    """Say for every action of MODELS (default: all) why it would run, or what it was made from."""
    for text in models:
        if text.endswith((".yaml", ".yml", ".json")) and does_exist(Path(text)):
            message = f"{printable(text)} is a file, and models are expected"
            raise UsageError("USAGE", message, hint=f"the recipe is named by an option: --recipe {printable(text)}")
    if action and as_statement:
        raise UsageError("USAGE", "a statement is about a model, not about an action", hint="leave out --action")
    with decided(context, recipe, models) as found:
        if as_statement:
            _show_statements(found, recipe)
        else:
            _show_actions(found, action)


def _show_statements(found: Decided, recipe: Path) -> None:
    from modelbuild.engine.provenance import provenance

    for name in found.plan.models:
        path = found.store.manifest_path(name)
        written_ns = path.stat().st_mtime_ns if does_exist(path) else None
        click.echo(json.dumps(provenance(found.decisions, str(name), recipe, written_ns), sort_keys=True))


def _show_actions(found: Decided, wanted: str) -> None:
    from modelbuild.engine.template_evidence import template_evidence

    actions = {decision.action.id: decision.action for decision in found.decisions}
    results = {item.action.id: item.result for item in found.decisions if item.result is not None}
    for decision in found.decisions:
        if wanted in decision.action.id:
            _show(decision)
            for line in template_evidence(decision.action, actions, results, found.store, found.state):
                click.echo(f"  template {line}")


def _show(decision: Decision) -> None:
    state = "runs" if decision.runs else "shared" if decision.made_by else "up to date"
    click.echo(f"{decision.action.id}: {state}  ({decision.action.title})")
    for reason in decision.reasons:
        click.echo(f"  because {reason}")
    if decision.made_by:
        click.echo(f"  made by {decision.made_by}")
    if decision.manifest is not None:
        click.echo(f"  key     {decision.manifest.key}")
        for role, digest in decision.manifest.inputs.items():
            click.echo(f"  input   {role}: {digest}")
    if decision.result is not None:
        click.echo(f"  result  {decision.result.digest}")
