"""`modelbuild pull`: a model from a registry into the store."""

from __future__ import annotations

import click

from modelbuild.cli.registry_options import check_host_is_named, registry_options, transfer
from modelbuild.cli.settings import current_settings, is_pruning, settings_options


@click.command(name="pull")
@click.argument("name")
@registry_options
@settings_options
@click.pass_context
def command(context: click.Context, name: str, *, insecure: bool, username: str) -> None:
    """Fetch the model NAME from the registry that its name says: HOST/NAMESPACE/MODEL:TAG.

    What the store has already is not fetched again. No other command fetches anything: a recipe's `from` never does.
    """
    from modelbuild.engine.transfer_events import PULL
    from modelbuild.model_name import parse_name
    from modelbuild.store.store import Store

    settings = current_settings(context)
    store = Store(settings.store, prune=is_pruning())
    wanted = store.spelling(parse_name(name))
    check_host_is_named(name, wanted, PULL)
    transfer(PULL, wanted, store, settings, insecure=insecure, username=username)
