"""`modelbuild rm`: remove models from the store."""

from __future__ import annotations

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.settings import current_settings, settings_options


@click.command(name="rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_stored)
@settings_options
@click.pass_context
def command(context: click.Context, names: tuple[str, ...]) -> None:
    """Remove models from the store, and the blobs that no other model uses."""
    from modelbuild.cli.render import format_size
    from modelbuild.engine.garbage import note_eviction
    from modelbuild.engine.stored import find_name
    from modelbuild.errors import ProblemCollector
    from modelbuild.store.store import Store

    settings = current_settings(context)
    store = Store(settings.store)
    problems = ProblemCollector()
    found = []
    for text in names:
        with problems.collect():
            found.append(find_name(store, text))
    problems.finish()  # all names are looked at before the first model goes
    for name in dict.fromkeys(found):
        collected = store.remove(name)
        note_eviction(settings.cache, collected.removed, "modelbuild rm")
        click.echo(f"removed {name} ({format_size(collected.freed_bytes)} freed)")
        if collected.waiting:
            click.echo(f"note: {collected.waiting}", err=True)
