"""A resolved model as a Modelfile; what Modelfiles cannot say goes into one comment line that our own import reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from modelbuild.errors import InputError
from modelbuild.formats.modelfile import ROLES, Command, format_modelfile, survives
from modelbuild.model_name import ModelName
from modelbuild.recipe.modelfile_nodes import extra_line
from modelbuild.recipe.modelfile_values import BOOLEANS, FLOATS, INTEGERS, LISTS, is_version, read_float32
from modelbuild.recipe.printing import model_to_plain, relative_path
from modelbuild.recipe.resolved import FileEntry, FromModel, FromPath, ResolvedModel
from modelbuild.records import record

_TEXT_FIELDS = ("template", "system", "renderer", "parser", "requires")


@record(frozen=False)
class _Export:
    """Commands so far, and the fields that are left for the comment line."""

    commands: list[Command]
    rest: dict[str, object]


def model_to_modelfile(model: ResolvedModel, directory: Path, names: Mapping[str, ModelName]) -> str:
    """The text of a Modelfile that stands in a directory and means the model.

    names: of the other models of the recipe by id, for a model that builds on one.
    Raises InputError EXPORT for files that are given by digest, which a Modelfile cannot name.
    """
    export = _Export([], model_to_plain(model, directory.absolute()))
    _add_sources(export, model, directory.absolute(), names)
    _add_texts(export, model)
    _add_parameters(export, model)
    _add_messages(export, model)
    return extra_line(export.rest) + format_modelfile(export.commands)


def _add_sources(export: _Export, model: ResolvedModel, directory: Path, names: Mapping[str, ModelName]) -> None:
    base = model.base
    export.rest.pop("from", None)
    if isinstance(base, FromModel):
        _say(export, Command("from", str(names[base.id])))
    elif isinstance(base, FromPath):
        _say(export, Command("from", relative_path(base.path, directory)))
    elif base is not None:
        _say(export, Command("from", base.text))
    for field, word, entries in (
        ("files", "from", model.files),
        ("draft_files", "draft", model.draft_files),
        ("adapters", "adapter", model.adapters),
    ):
        for entry in entries:
            _say(export, Command(word, relative_path(_path_of(entry), directory)))
        has_plain_names = all(entry.name == _path_of(entry).name for entry in entries)
        if has_plain_names and (field != "adapters" or len(entries) <= 1) and entries:
            del export.rest[field]


def _say(export: _Export, command: Command) -> None:
    """A command that every Modelfile needs, so it has to survive as it is."""
    if not survives(command):
        message = f"a Modelfile cannot say {command.name.upper()} {command.argument!r}"
        raise InputError("EXPORT", message, hint="use a path or name without quotes and control characters")
    export.commands.append(command)


def _path_of(entry: FileEntry) -> Path:
    if isinstance(entry.content, Path):
        return entry.content
    message = f"the file {entry.name!r} is given by digest, which a Modelfile cannot name"
    raise InputError("EXPORT", message, hint="give its path in the recipe")


def _add_texts(export: _Export, model: ResolvedModel) -> None:
    for name in _TEXT_FIELDS:
        command = Command(name, getattr(model, name))
        if command.argument and survives(command) and _is_same_version(command):
            export.commands.append(command)
            del export.rest[name]
    licenses = [Command("license", text) for text in model.licenses]
    if licenses and all(map(survives, licenses)):
        export.commands += licenses
        del export.rest["license"]


def _is_same_version(command: Command) -> bool:
    """Would the version come back as it is? A leading `v` is dropped, and what is no version refused."""
    return command.name != "requires" or (is_version(command.argument) and not command.argument.startswith("v"))


def _add_parameters(export: _Export, model: ResolvedModel) -> None:
    rest = export.rest.pop("parameters", None)
    left = dict(rest) if isinstance(rest, Mapping) else {}
    for name, value in (model.parameters or {}).items():
        commands = list(_parameter(name, value))
        if commands and all(map(survives, commands)):
            export.commands += commands
            del left[name]
    if left:
        export.rest["parameters"] = left
    elif rest is None and "parameters" in model.cleared:
        export.rest["parameters"] = None


def _parameter(name: str, value: object) -> Iterator[Command]:
    """The commands for a parameter; none when a Modelfile cannot say it."""
    if name in LISTS and isinstance(value, list) and all(isinstance(item, str) for item in value):
        yield from (Command("parameter", item, key=name) for item in value)
    elif name in BOOLEANS and isinstance(value, bool):
        yield Command("parameter", "true" if value else "false", key=name)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return
    elif name in INTEGERS and isinstance(value, int) and -(2**63) <= value < 2**63:
        yield Command("parameter", str(value), key=name)
    elif name in FLOATS and read_float32(repr(value)) == value:
        yield Command("parameter", repr(value), key=name)


def _add_messages(export: _Export, model: ResolvedModel) -> None:
    commands = [
        Command("message", str(message["content"]), key=str(message["role"]))
        for message in model.messages
        if message.keys() == {"role", "content"} and message["role"] in ROLES
    ]
    if commands and len(commands) == len(model.messages) and all(map(survives, commands)):
        export.commands += commands
        del export.rest["messages"]
