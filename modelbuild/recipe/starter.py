"""A first recipe for what somebody has: a Modelfile, a GGUF file, a checkpoint directory, or a stored model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.errors import InputError
from modelbuild.formats.files import does_exist, is_regular, open_input
from modelbuild.late_pattern import late_pattern
from modelbuild.model_name import parse_name
from modelbuild.places import expanded
from modelbuild.recipe.located import with_near_names
from modelbuild.recipe.modelfile_nodes import default_name, modelfile_to_nodes
from modelbuild.recipe.nodes import to_plain
from modelbuild.recipe.text_kind import is_modelfile
from modelbuild.recipe.yaml_text import to_yaml

SCHEMA_LINE = "# yaml-language-server: $schema=recipe.schema.json"
_DEFAULT_QUANTIZATION = "Q4_K_M"
_NAME_CHARACTER = late_pattern(r"[^a-z0-9_.-]+")
_SNIFFED_BYTES = 4096


def starter_fields(source: str, directory: Path) -> Mapping[str, object]:
    """The fields of a recipe for a source: an existing path as seen from the current directory, else a model's name.

    directory: where the recipe will stand; paths in it are relative to that.
    Raises RecipeError for a bad Modelfile, InputError PATH or MODELNAME for what is neither a path nor a name.
    """
    path = expanded(source)
    if not does_exist(path):
        if source.startswith(("./", "../", "/", "~")):
            raise with_near_names(InputError("PATH", "no such file or directory", path=path), path)
        parse_name(source)
        return {"model": f"{_name_of(source.partition(':')[0].rpartition('/')[2])}-custom", "from": source}
    if is_regular(path):
        with open_input(path) as file:
            head = file.read_at(0, min(_SNIFFED_BYTES, file.size_bytes))
            if is_modelfile(path, head):
                return _from_modelfile(path, file.read_at(0, file.size_bytes))
        return {"model": _name_of(path.stem), "from": _relative(path, directory)}
    return {
        "model": _name_of(path.absolute().name),
        "from": _relative(path, directory),
        "quantize": _DEFAULT_QUANTIZATION,
    }


def _from_modelfile(path: Path, data: bytes) -> Mapping[str, object]:
    fields = to_plain(modelfile_to_nodes(data, path))
    if not isinstance(fields, dict):
        raise AssertionError("a Modelfile is one model")
    return {"model": fields.pop("model", default_name(path)), **fields}


def starter_text(fields: Mapping[str, object]) -> str:
    """The text of a recipe with these fields, with a word on what could come next."""
    lines = [
        SCHEMA_LINE,
        "# 'modelbuild schema > recipe.schema.json' writes the schema that this line names.",
        "# 'modelbuild build' makes the model, 'modelbuild plan' shows what it would do.",
        to_yaml(fields).rstrip("\n"),
    ]
    examples = {
        "system": "# system: You write short, correct Python.",
        "parameters": "# parameters: {temperature: 0.2, num_ctx: 8192}",
        "template": "# template: {file: chat.tmpl}",
    }
    lines += [example for field, example in examples.items() if field not in fields]
    return "\n".join(lines) + "\n"


def _relative(path: Path, directory: Path) -> str:
    place, base = path.absolute(), directory.absolute()
    if not place.is_relative_to(base):
        return str(place)
    relative = place.relative_to(base)
    return relative.as_posix() if relative.parts[:1] in ((), ("..",)) else f"./{relative.as_posix()}"


def _name_of(text: str) -> str:
    """A model name that resembles a file's name: lower case, other characters as dashes."""
    return _NAME_CHARACTER.sub("-", text.lower()).strip(".-") or "model"
