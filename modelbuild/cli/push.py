"""`modelbuild push`: a model of the store to a registry."""

from __future__ import annotations

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.registry_options import check_host_is_named, registry_options, transfer
from modelbuild.cli.settings import current_settings, settings_options


@click.command(name="push")
@click.argument("name", shell_complete=complete_stored)
@registry_options
@settings_options
@click.pass_context
def command(context: click.Context, name: str, *, insecure: bool, username: str) -> None:
    """Send the model NAME to the registry that its name says: HOST/NAMESPACE/MODEL:TAG.

    `modelbuild copy` gives a model such a name. What the registry has already is not sent again. Registries that want
    requests signed with Ollama's key, as Ollama's own does, are left to `ollama push`.
    """
    from modelbuild.engine.stored import find_name
    from modelbuild.engine.transfer_events import PUSH
    from modelbuild.store.store import Store

    settings = current_settings(context)
    store = Store(settings.store)
    stored = find_name(store, name)
    check_host_is_named(name, stored, PUSH)
    transfer(PUSH, stored, store, settings, insecure=insecure, username=username)
