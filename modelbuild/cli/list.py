"""`modelbuild list`: the models of the store."""

from __future__ import annotations

import json

import click

from modelbuild.cli.render import format_size
from modelbuild.cli.settings import current_settings, settings_options


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of objects.")
@settings_options
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List the models in the store; damaged ones are marked, and never hide the others."""
    from modelbuild.engine.describe import describe_models
    from modelbuild.errors import printable
    from modelbuild.store.store import Store

    rows = describe_models(Store(current_settings(context).store))
    if as_json:
        click.echo(json.dumps([row.to_json() for row in rows], indent=2))
        return
    table = [
        ("NAME", "ID", "SIZE", "TYPE"),
        *((r.name, r.listed[:12], _size(r.size_bytes), printable(r.file_type)) for r in rows),
    ]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for damaged in (row for row in rows if row.damage):
        click.echo(f"warning: {printable(damaged.path, 4096)}: {damaged.damage}", err=True)


def _size(size_bytes: int) -> str:
    return format_size(size_bytes) if size_bytes else "-"
