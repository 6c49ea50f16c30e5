"""Resolved models as a recipe again: no variables, no inheritance, no matrix, but the same models.

Building the printed recipe, saved beside the original, gives the same action keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelbuild.errors import Position, printable
from modelbuild.recipe.inheritance import CLEARABLE
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode
from modelbuild.recipe.resolve import Loaded, SourceModel
from modelbuild.recipe.resolved import FileEntry, FromModel, FromPath, MetadataValue, Recipe, ResolvedModel
from modelbuild.records import record

#: Recipe-only, so that null has a recipe's meaning wherever the result is written as JSON.
VERSION = 1


def recipe_to_plain(recipe: Recipe, directory: Path | None = None) -> dict[str, object]:
    """The recipe as plain data with nothing left to resolve, models in build order.

    directory: where paths are relative to, the recipe's own by default; paths outside of it are absolute.
    """
    base = (directory or recipe.path.parent).absolute()
    if [model.id for model in recipe.models] == [""]:
        return {"version": VERSION, **model_to_plain(recipe.models[0], base)}
    plain: dict[str, object] = {
        "version": VERSION,
        "models": {model.id: model_to_plain(model, base) for model in recipe.models},
    }
    keys = {model.key for model in recipe.models}
    groups = {name: list(ids) for name, ids in recipe.groups.items() if ids and name not in keys}
    # A key with variants is no model of the printed recipe, but people go on naming it.
    groups |= {name: list(ids) for name, ids in recipe.groups.items() if name in keys}
    return {**plain, "groups": groups} if groups else plain


def model_to_plain(model: ResolvedModel, directory: Path) -> dict[str, object]:
    """The fields of a model, in the order of the documentation, those that say nothing left out."""
    fields: dict[str, object] = {
        "model": str(model.name),
        "from": _base(model, directory),
        "files": _files(model.files, directory),
        "adapters": _files(model.adapters, directory),
        "draft_files": _files(model.draft_files, directory),
        "quantize": model.quantize,
        "draft_quantize": model.draft_quantize,
        "intermediate": model.intermediate,
        "allow_requantize": model.allow_requantize,
        "tensor_types": [{"pattern": rule.pattern, "type": rule.type} for rule in model.tensor_types],
        "imatrix": "" if model.imatrix is None else relative_path(model.imatrix, directory),
        "pre_tokenizer": model.pre_tokenizer,
        "metadata": {key: _metadata(value) for key, value in model.metadata.items()},
        "rewrite_gguf": model.rewrite_gguf,
        "remote_host": model.remote_host,
        "template": model.template,
        "system": model.system,
        "license": model.licenses[0] if len(model.licenses) == 1 else list(model.licenses),
        "parameters": _parameters(model),
        "messages": [dict(message) for message in model.messages],
        "renderer": model.renderer,
        "parser": model.parser,
        "requires": model.requires,
        "info": _info(model),
        "outputs": {output.kind: relative_path(output.path, directory) for output in model.outputs},
    }
    said = {name: value for name, value in fields.items() if value not in (None, "", False, [], {})}
    if model.licenses == ("",):
        said["license"] = [""]
    cleared = {name: None for name in CLEARABLE if name in model.cleared}
    return {name: said.get(name) for name in fields if name in said or name in cleared}


def _base(model: ResolvedModel, directory: Path) -> object:
    base = model.base
    if isinstance(base, FromModel):
        return {"model": base.id}
    if isinstance(base, FromPath):
        return relative_path(base.path, directory)
    return None if base is None else base.text


def _files(entries: Sequence[FileEntry], directory: Path) -> dict[str, str]:
    return {
        entry.name: relative_path(entry.content, directory) if isinstance(entry.content, Path) else str(entry.content)
        for entry in entries
    }


def relative_path(path: Path, directory: Path) -> str:
    """The path as a recipe in a directory names it: `./…` below it, absolute elsewhere."""
    place = path.absolute()
    return "./" + place.relative_to(directory).as_posix() if place.is_relative_to(directory) else str(place)


def _metadata(value: MetadataValue) -> object:
    plain = list(value.value) if isinstance(value.value, tuple) else value.value
    return {"type": value.type, "value": plain} if value.type else plain


def _parameters(model: ResolvedModel) -> dict[str, object]:
    dropped = sorted(name.partition(".")[2] for name in model.cleared if name.startswith("parameters."))
    return {**(model.parameters or {}), **dict.fromkeys(dropped)}


def _info(model: ResolvedModel) -> dict[str, object]:
    info = dict(model.info or {})
    return {**info, "capabilities": None} if "capabilities" in model.cleared else info


# -- origins -----------------------------------------------------------------------------------------------------


@record
class Origin:
    """Where one value of a recipe comes from. path: model, field and keys, joined by dots."""

    path: str
    value: object
    position: Position
    via: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The origin as a JSON object."""
        place = self.position
        record: dict[str, object] = {"path": self.path, "value": self.value, "file": place.path, "line": place.line}
        return {**record, "column": place.column, "via": list(self.via)}

    def __str__(self) -> str:
        value = printable(self.value, 60) if isinstance(self.value, str) else str(self.value)
        via = f"  ({', '.join(self.via)})" if self.via else ""
        return f"{printable(self.path)} = {value}  {self.position}{via}"


def origins_of(loaded: Loaded) -> list[Origin]:
    """One origin for every value of every model, models in build order."""
    return [origin for model in loaded.recipe.models for origin in _origins(loaded.sources[model.id])]


def _origins(source: SourceModel) -> list[Origin]:
    prefix = f"{source.id}." if source.id else ""
    return [origin for key, node in source.node.entries.items() for origin in _leaves(f"{prefix}{key}", node)]


def _leaves(path: str, node: Node) -> list[Origin]:
    if isinstance(node, ScalarNode):
        return [Origin(path, node.value, node.position, node.via)]
    if isinstance(node, SequenceNode):
        return [leaf for index, item in enumerate(node.items) for leaf in _leaves(f"{path}.{index}", item)]
    if isinstance(node, MappingNode):
        return [leaf for key, item in node.entries.items() for leaf in _leaves(f"{path}.{key}", item)]
    return []
