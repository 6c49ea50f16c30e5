"""`modelbuild export`: models into one archive."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelbuild.cli.settings import current_settings, settings_options


@click.command(name="export")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
              help="The archive to write (.tar), or - for standard output.")  # fmt: skip
@settings_options
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], output: Path) -> None:
    """Write the models NAME into an archive; `modelbuild import` gives the same digests elsewhere."""
    from modelbuild.engine.archive import export_models
    from modelbuild.engine.stored import find_name
    from modelbuild.formats.new_file import new_file
    from modelbuild.store.store import Store

    store = Store(current_settings(context).store)
    wanted = [find_name(store, text) for text in names]
    if str(output) == "-":
        models = export_models(store, wanted, sys.stdout.buffer)
    else:
        with new_file(output) as target:
            models = export_models(store, wanted, target)
    for model in models:
        click.echo(f"exported {model.name}  {model.digest[7:19]}", err=True)
