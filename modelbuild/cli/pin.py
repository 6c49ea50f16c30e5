"""`modelbuild pin`: keep blobs whatever becomes of their models."""

from __future__ import annotations

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.settings import current_settings, settings_options


@click.command(name="pin")
@click.argument("names", nargs=-1, metavar="[NAME|DIGEST]...", shell_complete=complete_stored)
@click.option("--remove", is_flag=True, help="Remove pins; the blobs stay until 'modelbuild gc'.")
@settings_options
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], *, remove: bool) -> None:
    """Keep the blobs that models have now, whatever becomes of the models.

    Neither gc nor rm nor a new build deletes a pinned blob. Without names: list the pins.
    """
    from modelbuild.cli.render import format_count, format_size
    from modelbuild.engine.pinning import pin, unpin
    from modelbuild.errors import UsageError
    from modelbuild.store.pins import read_pins
    from modelbuild.store.store import Store

    store = Store(current_settings(context).store)
    if remove:
        if not names:
            raise UsageError("MISSING", "--remove takes names", hint="'modelbuild pin' lists the pins")
        for name in names:
            click.echo(f"unpinned {unpin(store, name)}")
        return
    shown = pin(store, names) if names else read_pins(store.blobs)
    for item in shown:
        size_bytes = sum(store.blobs.size_of(digest) or 0 for digest in set(item.digests))
        text = f"{item.name}  {format_count(len(set(item.digests)), 'blob')}, {format_size(size_bytes)}"
        click.echo(f"pinned {text}" if names else text)
