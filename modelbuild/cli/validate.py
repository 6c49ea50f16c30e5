"""`modelbuild validate`: parse, check and resolve; report everything at once."""

from __future__ import annotations

from pathlib import Path

import click

from modelbuild.cli.build import DEFAULT_RECIPE


@click.command(name="validate")
@click.argument("recipe", type=click.Path(path_type=Path), default=DEFAULT_RECIPE)
def command(recipe: Path) -> None:
    """Check RECIPE (default: recipe.yaml) and show all its errors; reads no weights and no store."""
    from modelbuild.recipe.resolve import load_recipe

    resolved = load_recipe(recipe)
    for warning in resolved.warnings:
        click.echo(f"warning: {warning}", err=True)
    names = ", ".join(str(model.name) for model in resolved.models)
    click.echo(f"{recipe}: {len(resolved.models)} {'model' if len(resolved.models) == 1 else 'models'}: {names}")
