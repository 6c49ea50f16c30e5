"""`modelbuild diff`: what differs between two models."""

from __future__ import annotations

import json

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.settings import current_settings, settings_options


@click.command(name="diff")
@click.argument("old", shell_complete=complete_stored)
@click.argument("new", shell_complete=complete_stored)
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.option("--headers", is_flag=True, help="Do not read weights: compare layers, metadata, shapes and types only.")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 when there is a difference.")
@settings_options
@click.pass_context
def command(context: click.Context, old: str, new: str, *, as_json: bool, headers: bool, exit_code: bool) -> int:
    """Compare the stored models OLD and NEW (or two GGUF files, as ./PATH): layers, metadata, tensors."""
    from modelbuild.engine.compare import compare
    from modelbuild.store.store import Store

    found = compare(Store(current_settings(context).store), old, new, data=not headers)
    if as_json:
        click.echo(json.dumps([item.to_json() for item in found], indent=2, ensure_ascii=False))
    for item in () if as_json else found:
        if item.old is not None:
            click.echo(f"- {item.where}: {item.old}")
        if item.new is not None:
            click.echo(f"+ {item.where}: {item.new}")
        if item.old is None and item.new is None:
            click.echo(f"~ {item.where}")
    if not found and not as_json:
        click.echo("no difference")
    return 1 if found and exit_code else 0
