"""`modelbuild import`: the models of an archive into the store, or a Modelfile as a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from modelbuild.cli.modelfile import is_modelfile_path, show_import
from modelbuild.cli.settings import current_settings, is_pruning, settings_options
from modelbuild.errors import InputError, UsageError

if TYPE_CHECKING:
    from modelbuild.engine.archive import ArchivedModel
    from modelbuild.store.store import Store


def _import(store: Store, stream: BinaryIO, archive: Path, *, force: bool) -> list[ArchivedModel]:
    from modelbuild.engine.archive import import_models

    try:
        return import_models(store, stream, force=force)
    except InputError as error:
        error.path = error.path or archive
        raise


@click.command(name="import")
@click.argument("archive", metavar="SOURCE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--to", "target", type=click.Choice(["recipe", "request"]),
              help="Make a recipe (YAML) or a create request (JSON) of a Modelfile [recipe].")  # fmt: skip
@click.option("--name", default="", help="Name of the model that the Modelfile describes.")
@click.option("--force", is_flag=True, help="Replace models of the same name that differ.")
@settings_options
@click.pass_context
def command(context: click.Context, archive: Path, target: str | None, name: str, *, force: bool) -> None:
    """Take over the models of an archive (a .tar or .tar.gz of `modelbuild export`, or - for standard input).

    When SOURCE is a Modelfile, print the recipe or the create request that it means instead.
    """
    if target or is_modelfile_path(archive):
        if force:
            raise UsageError("USAGE", "what a Modelfile means is only printed", hint="leave out --force")
        show_import(archive, target or "recipe", name)
        return
    if name:
        hint = "leave out --name, and 'modelbuild copy' the model afterwards"
        raise UsageError("USAGE", "the models of an archive have their names", hint=hint)
    from modelbuild.formats.files import open_input
    from modelbuild.store.store import Store

    store = Store(current_settings(context).store, prune=is_pruning())
    if str(archive) == "-":
        models = _import(store, sys.stdin.buffer, Path("standard input"), force=force)
    else:
        with open_input(archive) as source, open(source.fd, "rb", closefd=False) as stream:
            models = _import(store, stream, archive, force=force)
    for model in models:
        click.echo(f"imported {model.name}  {model.digest[7:19]}")
