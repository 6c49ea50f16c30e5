"""`modelbuild init`: a first recipe, from what is there or from a few questions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.cli.settings import current_settings, settings_options
from modelbuild.errors import InputError, UsageError, printable
from modelbuild.formats.files import does_exist, is_directory
from modelbuild.model_name import parse_name
from modelbuild.places import expanded


@click.command(name="init")
@click.argument("source", default="")
@click.option("--output", "-o", type=click.Path(path_type=Path), default=DEFAULT_RECIPE, show_default=True,
              metavar="FILE", help="Where to write the recipe; - prints it.")  # fmt: skip
@click.option("--name", default="", metavar="NAME", help="Name of the model.")
@click.option("--force", is_flag=True, help="Replace a recipe that is there.")
@settings_options
@click.pass_context
def command(context: click.Context, source: str, output: Path, name: str, *, force: bool) -> None:
    """Write a recipe for SOURCE: a Modelfile, a GGUF file, a checkpoint directory, or the name of a stored model.

    Without SOURCE, asks for it.
    """
    from modelbuild.formats.new_file import new_file
    from modelbuild.recipe.starter import starter_fields, starter_text

    is_printed = str(output) == "-"
    if not is_printed and does_exist(output) and not force:
        raise UsageError("USAGE", f"{output} exists", hint="use --force to replace it, or --output FILE")
    directory = Path() if is_printed else output.parent
    if name:
        parse_name(name)
    if source:
        _refuse_other_files(expanded(source))
        fields = {**starter_fields(source, directory), **({"model": name} if name else {})}
    else:
        fields = dict(_ask(directory, name))
    text = starter_text(fields)
    if is_printed:
        click.echo(text, nl=False)
        return
    with new_file(output) as target:
        target.write(text.encode())
    click.echo(f"wrote {output}: {fields['model']} from {fields.get('from', 'files')}")
    if source and not does_exist(expanded(source)):
        _warn_of_unknown(source, current_settings(context).store)


def _refuse_other_files(path: Path) -> None:
    """InputError for a file that is neither a whole GGUF nor a Modelfile: no model can be made from it.

    A directory may be filled later, so what it lacks is a warning.
    """
    from modelbuild.cli.modelfile import is_modelfile_path

    if not does_exist(path) or (not is_directory(path) and is_modelfile_path(path)):
        return
    from modelbuild.convert.checkpoint import Checkpoint
    from modelbuild.sources.identify import SourceKind, identify_path

    if identify_path(path) is not SourceKind.CHECKPOINT:
        return
    try:
        Checkpoint.of_directory(path)
    except InputError as error:
        if not is_directory(path):
            raise
        click.echo(f"warning: {error}", err=True)


def _warn_of_unknown(source: str, store: Path) -> None:
    """A name may be that of a model to come, or a typing error."""
    import difflib

    from modelbuild.engine.stored import find_name
    from modelbuild.store.store import Store

    try:
        find_name(Store(store), source)
    except InputError as error:
        near = difflib.get_close_matches(source, [entry.name for entry in Path().iterdir()], n=1)
        hint = f"did you mean ./{printable(near[0])}?" if near else error.hint
        click.echo(f"warning: {error.message}, and no such path\n  hint: {hint}", err=True)


def _ask(directory: Path, name: str) -> Mapping[str, object]:
    """The fields that a person gives; the defaults fit what was answered before."""
    from modelbuild.recipe.starter import starter_fields

    if not sys.stdin.isatty():
        raise UsageError("USAGE", "what the model is made from is missing", hint="modelbuild init SOURCE")
    source = click.prompt("Made from (a path, or the name of a stored model)")
    fields = dict(starter_fields(source, directory))
    fields["model"] = name or click.prompt("Name of the model", default=str(fields["model"]))
    if "quantize" in fields:
        fields["quantize"] = click.prompt("Quantize to", default=str(fields["quantize"]))
    if "system" not in fields and (system := click.prompt("System prompt", default="", show_default=False)):
        fields["system"] = system
    return fields
