"""`modelbuild export`: models into one archive, or a model of a recipe as a Modelfile."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.modelfile import show_export
from modelbuild.cli.recipe_options import current_recipe_options, recipe_options
from modelbuild.cli.settings import current_settings, settings_options
from modelbuild.errors import UsageError


@click.command(name="export")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_stored)
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The file to write; - is standard output.")  # fmt: skip
@click.option("--to", "target", type=click.Choice(["archive", "modelfile"]), default="archive",
              metavar="WHAT", help="What to write: archive or modelfile [archive].")  # fmt: skip
@recipe_options
@settings_options
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], output: Path | None, target: str) -> None:
    """Write the models NAME into an archive; `modelbuild import` gives the same digests elsewhere.

    With --to modelfile, print a model of a recipe as a Modelfile: modelbuild export --to modelfile RECIPE [MODEL].
    What Modelfiles cannot say stands in a comment that `import` and `build` read.
    """
    is_printed = str(output) == "-"
    if target == "modelfile":
        if len(names) > 2:
            raise UsageError("USAGE", "a recipe and at most one model are expected", hint="export RECIPE MODEL")
        model = names[1] if len(names) > 1 else ""
        show_export(Path(names[0]), model, None if is_printed else output, current_recipe_options(context))
        return
    if output is None:
        raise UsageError("USAGE", "where to write the archive is missing", hint="add --output FILE")
    from modelbuild.engine.archive import export_models
    from modelbuild.engine.stored import find_name
    from modelbuild.formats.new_file import new_file
    from modelbuild.store.store import Store

    store = Store(current_settings(context).store)
    wanted = [find_name(store, text) for text in names]
    if is_printed:
        models = export_models(store, wanted, sys.stdout.buffer)
    else:
        with new_file(output) as archive:
            models = export_models(store, wanted, archive)
    for stored in models:
        click.echo(f"exported {stored.name}  {stored.digest[7:19]}", err=True)
