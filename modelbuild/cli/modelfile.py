"""What `import` and `export` do with Modelfiles."""

from __future__ import annotations

from pathlib import Path

import click

from modelbuild.digest import Digest
from modelbuild.errors import UsageError, printable
from modelbuild.formats.files import is_regular
from modelbuild.model_name import parse_name
from modelbuild.recipe.options import LoadOptions

_SNIFFED_BYTES = 4096


def is_modelfile_path(path: Path) -> bool:
    """Is this an existing Modelfile, by name or by how it begins?"""
    if not is_regular(path):
        return False
    from modelbuild.formats.files import open_input
    from modelbuild.recipe.text_kind import is_modelfile

    with open_input(path) as source:
        return is_modelfile(path, source.read_at(0, min(_SNIFFED_BYTES, source.size_bytes)))


def show_import(modelfile: Path, target: str, name: str) -> None:
    """Print what a Modelfile says: target "recipe" as YAML, "request" as the JSON of a create request.

    A request names files by their digests, so all of them are read once.
    """
    from modelbuild.recipe.documents import read_limited
    from modelbuild.recipe.modelfile_nodes import modelfile_to_nodes
    from modelbuild.recipe.modelfile_request import modelfile_to_request
    from modelbuild.recipe.nodes import to_plain
    from modelbuild.recipe.yaml_text import to_yaml

    data = read_limited(modelfile)
    if name:
        parse_name(name)
    request = None if target == "recipe" else modelfile_to_request(data, modelfile, _digest_of, name)
    if request is not None:
        for warning in request.warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(request.to_json())
        return
    fields = to_plain(modelfile_to_nodes(data, modelfile))
    if not isinstance(fields, dict):
        raise AssertionError("a Modelfile is one model")
    model = fields.pop("model")
    click.echo(to_yaml({"model": name or model, **fields}), nl=False)


def show_export(recipe: Path, model: str, output: Path | None, options: LoadOptions) -> None:
    """Write a model of a recipe as a Modelfile, to standard output when no file is given."""
    from modelbuild.formats.new_file import new_file
    from modelbuild.recipe.modelfile_export import model_to_modelfile
    from modelbuild.recipe.resolve import load_recipe

    resolved = load_recipe(recipe, options)
    wanted = [item for item in resolved.models if not model or model in (item.id, str(item.name), item.name.model)]
    if len(wanted) != 1:
        ids = ", ".join(printable(item.id or str(item.name)) for item in resolved.models)
        what = f"no model {printable(model)!r}" if model and not wanted else "more than one model"
        raise UsageError("UNKNOWN", f"{what} in {recipe}", hint=f"name one: {ids}")
    directory = recipe.parent if output is None else output.parent
    text = model_to_modelfile(wanted[0], directory, {item.id: item.name for item in resolved.models})
    if output is None:
        click.echo(text, nl=False)
    else:
        with new_file(output) as target:
            target.write(text.encode())


def _digest_of(path: Path) -> Digest:
    from modelbuild.formats.files import open_input
    from modelbuild.formats.hashing import digest_of_file

    with open_input(path) as source:
        return digest_of_file(source)
