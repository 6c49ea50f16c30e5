"""`modelbuild copy`: give a model a second name."""

from __future__ import annotations

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.settings import current_settings, is_pruning, settings_options


@click.command(name="copy")
@click.argument("source", shell_complete=complete_stored)
@click.argument("target")
@settings_options
@click.pass_context
def command(context: click.Context, source: str, target: str) -> None:
    """Give the model SOURCE the name TARGET as well; nothing is copied but the manifest."""
    from modelbuild.engine.stored import find_name
    from modelbuild.model_name import parse_name
    from modelbuild.store.store import Store

    store = Store(current_settings(context).store, prune=is_pruning())
    name, other = find_name(store, source), store.spelling(parse_name(target))
    store.copy(name, other)
    click.echo(f"copied {name} to {other}")
