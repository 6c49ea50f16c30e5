"""A Modelfile as the nodes of a recipe, so that it goes the way of every recipe from there on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelbuild.errors import InputError, Position, RecipeError
from modelbuild.formats.files import is_directory
from modelbuild.formats.modelfile import Command, ModelfileError, parse_modelfile
from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.modelfile_files import find_files, list_model_files
from modelbuild.recipe.modelfile_values import read_texts
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode, with_loud_nulls
from modelbuild.recipe.text import parse_recipe_text

#: A comment of our own that carries, as JSON, what Modelfiles cannot say.
EXTRA_PREFIX = "# modelbuild: "
_NAME_CHARACTER = late_pattern(r"[^A-Za-z0-9_.-]", re.ASCII)


def modelfile_to_nodes(data: bytes, path: Path) -> MappingNode:
    """The recipe of one model that a Modelfile means; RecipeError MODELFILE with Ollama's text otherwise.

    Modelfiles have no name for the model: it is that of the file (`coder.modelfile`, `Modelfile.coder`), else that of
    its directory, unless the comment line `# modelbuild: {"model": ...}` or `--set model=NAME` gives one.
    """
    try:
        commands = parse_modelfile(data, path)
        maker = _Maker(commands, path)
        made = maker.fields()
    except ModelfileError as error:
        position = Position(str(path), error.line, error.column)
        raise RecipeError(error.code, error.message, position, hint=error.hint) from error
    except InputError as error:
        raise RecipeError(error.code, error.message, Position(str(path), 1, 1), hint=error.hint) from error
    extra = read_extra(data, path)
    entries = _with_extra(made, extra.entries if extra else {})
    entries.setdefault("model", ScalarNode(default_name(path), Position(str(path), 1, 1)))
    return MappingNode(entries, {key: value.position for key, value in entries.items()}, Position(str(path), 1, 1))


def _with_extra(made: dict[str, Node], extra: Mapping[str, Node]) -> dict[str, Node]:
    """The fields of the commands with those of the comment line over them, parameters key by key."""
    entries = {**made, **extra}
    own, more = made.get("parameters"), extra.get("parameters")
    if isinstance(own, MappingNode) and isinstance(more, MappingNode):
        entries["parameters"] = MappingNode({**own.entries, **more.entries}, {**own.keys, **more.keys}, own.position)
    if "files" in extra:
        entries.pop("from", None)
    return entries


def default_name(path: Path) -> str:
    """The model name that a Modelfile's own name, or that of its directory, suggests."""
    name = path.name
    if name.lower().startswith("modelfile."):
        name = name[len("modelfile.") :]
    elif name.lower().endswith(".modelfile"):
        name = name[: -len(".modelfile")]
    else:
        name = path.absolute().parent.name
    return _NAME_CHARACTER.sub("-", name).lstrip(".-")[:80] or "model"


def read_extra(data: bytes, path: Path) -> MappingNode | None:
    """The fields that a `# modelbuild: {...}` line of a Modelfile carries."""
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if line.startswith(EXTRA_PREFIX):
            node = with_loud_nulls(parse_recipe_text(line[len(EXTRA_PREFIX) :].encode(), str(path)))
            moved = _moved(node, number - 1, len(EXTRA_PREFIX))
            return moved if isinstance(moved, MappingNode) else None
    return None


def _moved(node: Node, lines: int, columns: int) -> Node:
    """A tree that stands on one line, put where that line stands in its file."""

    def move(at: Position) -> Position:
        return Position(at.path, at.line + lines, at.column + columns)

    if isinstance(node, ScalarNode):
        return ScalarNode(node.value, move(node.position), node.text, node.inner)
    if isinstance(node, SequenceNode):
        return SequenceNode(tuple(_moved(item, lines, columns) for item in node.items), move(node.position))
    entries = {key: _moved(value, lines, columns) for key, value in node.entries.items()}
    return MappingNode(entries, {key: move(at) for key, at in node.keys.items()}, move(node.position))


class _Maker:
    """Makes the fields of one Modelfile."""

    def __init__(self, commands: Sequence[Command], path: Path) -> None:
        self._path = path
        self._texts = read_texts(commands, path)
        self._files = find_files(commands, path)

    def fields(self) -> dict[str, Node]:
        """The fields by name."""
        fields: dict[str, Node] = {**self._sources()}
        for name in ("template", "system", "renderer", "parser", "requires"):
            command = getattr(self._texts, name)
            if command is not None and command.argument:
                fields[name] = self._scalar(command.argument, command)
        if self._texts.licenses:
            fields["license"] = self._list([self._scalar(item.argument, item) for item in self._texts.licenses])
        if self._texts.parameters:
            fields["parameters"] = self._parameters()
        if self._texts.messages:
            fields["messages"] = self._list([self._message(item) for item in self._texts.messages])
        return fields

    def _sources(self) -> dict[str, Node]:
        files = self._files
        fields: dict[str, Node] = {}
        if files.from_ is not None:  # a name beats files, as on Ollama's server
            fields["from"] = self._scalar(files.from_.argument, files.from_)
        elif len(files.base_paths) == 1 and _is_one_source(*files.base_paths[0], self._path):
            path, command = files.base_paths[0]
            fields["from"] = self._scalar(self._relative(path), command)
        elif files.base_paths:
            fields["files"] = self._paths(files.base_paths)
        if files.adapter is not None:
            path, command = files.adapter
            fields["adapters"] = self._scalar(self._relative(path), command)
        if files.draft_paths:
            fields["draft_files"] = self._paths(files.draft_paths)
        return fields

    def _paths(self, paths: Sequence[tuple[Path, Command]]) -> SequenceNode:
        return self._list([self._scalar(self._relative(path), command) for path, command in self._expanded(paths)])

    def _expanded(self, paths: Sequence[tuple[Path, Command]]) -> list[tuple[Path, Command]]:
        """Paths of files; a directory stands for the files in it that make a model."""
        found: list[tuple[Path, Command]] = []
        for path, command in paths:
            names = list_model_files(path, command, self._path) if is_directory(path) else [path]
            found += [(name, command) for name in names]
        return found

    def _relative(self, path: Path) -> str:
        """The path as a recipe beside the Modelfile would write it."""
        directory = self._path.absolute().parent
        if path.is_relative_to(directory):
            return "./" + path.relative_to(directory).as_posix()
        return os.path.relpath(path, directory) if path.is_relative_to(directory.parent) else str(path)

    def _parameters(self) -> MappingNode:
        entries: dict[str, Node] = {}
        for name, (value, command) in self._texts.parameters.items():
            if isinstance(value, list):
                entries[name] = self._list([self._scalar(item, command) for item in value])
            else:
                entries[name] = self._scalar(value, command)
        first = next(iter(entries.values())).position
        return MappingNode(entries, {name: item.position for name, item in entries.items()}, first)

    def _message(self, command: Command) -> MappingNode:
        entries: dict[str, Node] = {
            "role": self._scalar(command.key, command),
            "content": self._scalar(command.argument, command),
        }
        position = self._at(command)
        return MappingNode(entries, {"role": position, "content": position}, position)

    def _list(self, items: Sequence[Node]) -> SequenceNode:
        return SequenceNode(tuple(items), items[0].position)

    def _scalar(self, value: object, command: Command) -> ScalarNode:
        if not isinstance(value, str | int | float | bool):
            raise AssertionError("Modelfile values are scalars")
        if value != command.argument or command.inner < 0:
            return ScalarNode(value, self._at(command))
        return ScalarNode(value, self._at(command), None, command.inner, 0)

    def _at(self, command: Command) -> Position:
        return Position(str(self._path), command.line, command.column)


def _is_one_source(path: Path, command: Command, modelfile: Path) -> bool:
    """Can `from` mean it: a file, or a directory with a checkpoint (and not with GGUF files)?"""
    if not is_directory(path):
        return True
    return any(name.suffix == ".safetensors" for name in list_model_files(path, command, modelfile))


def extra_line(fields: dict[str, object]) -> str:
    """The comment line that carries fields which a Modelfile cannot say."""
    return EXTRA_PREFIX + json.dumps(fields, ensure_ascii=True, sort_keys=True) + "\n"
