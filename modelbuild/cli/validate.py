"""`modelbuild validate`: parse, check and resolve; report everything at once, for people and for tools."""

from __future__ import annotations

import json
from pathlib import Path

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.recipe_options import current_recipe_options, recipe_options
from modelbuild.cli.render import format_count

FORMATS = ("text", "json", "sarif")
EXIT_INVALID = 2


@click.command(name="validate")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How to report.")
@recipe_options
@click.pass_context
def command(context: click.Context, recipe: Path, form: str) -> int:
    """Check RECIPE (default: recipe.yaml) and its texts, and show all errors; weights and bases need not be there."""
    from modelbuild.errors import ModelbuildError
    from modelbuild.recipe.report import findings_of, to_json, to_sarif
    from modelbuild.recipe.resolve import load_recipe

    try:
        resolved = load_recipe(recipe, current_recipe_options(context))
    except ModelbuildError as error:
        if form == "text":
            raise
        findings = findings_of(error)
        report = to_json(findings) if form == "json" else to_sarif(findings)
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return max(EXIT_INVALID, error.exit_status)
    if form != "text":
        findings = findings_of(*resolved.warnings)
        report = to_json(findings, resolved) if form == "json" else to_sarif(findings)
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return 0
    for warning in resolved.warnings:
        click.echo(f"warning: {warning}", err=True)
    names = ", ".join(str(model.name) for model in resolved.models)
    click.echo(f"{recipe}: {format_count(len(resolved.models), 'model')}: {names}")
    return 0
