"""One model's nodes to a `ResolvedModel`: names parsed, paths and text files followed, templates checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from modelbuild.errors import InputError, ModelbuildError, Position, ProblemCollector, RecipeError, printable
from modelbuild.formats.files import open_input
from modelbuild.formats.gguf.limits import check_key
from modelbuild.late_pattern import late_pattern
from modelbuild.model_name import ModelName, parse_name
from modelbuild.recipe.file_sets import FileSets
from modelbuild.recipe.inheritance import CLEARABLE, is_clearing
from modelbuild.recipe.located import located, with_near_names
from modelbuild.recipe.messages import normalize_messages
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode, to_plain
from modelbuild.recipe.reference import normalize_remote_host, split_source
from modelbuild.recipe.resolved import (
    FromModel,
    FromName,
    FromPath,
    MetadataValue,
    Output,
    RecipeWarning,
    ResolvedModel,
    TensorTypeRule,
)
from modelbuild.recipe.roots import AllowedRoots
from modelbuild.recipe.schema_checker import INTERPOLATION
from modelbuild.similar_names import similar_names

#: A template, system prompt or licence; larger ones are mistakes (a model file named by accident).
TEXT_FILE_LIMIT_BYTES = 4 << 20
#: Longer patterns are mistakes, and searching with them is slow.
PATTERN_LIMIT = 250
PATH_STARTS = ("./", "../", "/", "~")
#: Who can speak in a conversation.
_ROLES = ("system", "user", "assistant", "tool")
_SEMVER = late_pattern(r"v?[0-9]+(\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)?", re.ASCII)


class ModelReader:
    """Reads models of one recipe; remembers the files it read, the directories it listed and what to warn about."""

    def __init__(self, roots: AllowedRoots) -> None:
        self._roots = roots
        self._sets = FileSets(roots)
        self._texts: dict[Path, str] = {}
        self._checked_templates: set[str] = set()
        self.warnings: list[RecipeWarning] = []

    @property
    def files(self) -> list[Path]:
        """The text files that were read."""
        return list(self._texts)

    @property
    def directories(self) -> list[Path]:
        """The directories whose listing decided which files a model has."""
        return list(self._sets.directories)

    def read(
        self, model_id: str, key: str, node: MappingNode, position: Position, problems: ProblemCollector
    ) -> ResolvedModel | None:
        """The model, or None when something is wrong with it; everything that is wrong is collected."""
        before = len(problems.errors)
        fields: dict[str, Any] = {}
        for name, read in self._readers(model_id, node, position).items():
            try:
                fields[name] = read()
            except ModelbuildError as error:
                problems.add(error)
        if len(problems.errors) > before:
            return None
        places = {name: value.position for name, value in node.entries.items()}
        return ResolvedModel(id=model_id, key=key, position=position, positions=places, **fields)

    def _readers(self, model_id: str, node: MappingNode, position: Position) -> dict[str, Callable[[], object]]:
        """How each part of a resolved model is made."""
        quantize = node.get("quantize") or node.get("quantization")
        return {
            "name": lambda: self._name(model_id, node, position),
            "base": lambda: self._base(node),
            "files": lambda: self._sets.entries(node, "files"),
            "adapters": lambda: self._sets.entries(node, "adapters"),
            "draft_files": lambda: self._sets.entries(node, "draft_files"),
            "quantize": lambda: _text_of(quantize),
            "draft_quantize": lambda: _text_of(node.get("draft_quantize")),
            "intermediate": lambda: _text_of(node.get("intermediate")),
            "allow_requantize": lambda: _flag(node.get("allow_requantize")),
            "tensor_types": lambda: tuple(_tensor_types(node.get("tensor_types"))),
            "imatrix": lambda: self._path_of(node.get("imatrix")),
            "pre_tokenizer": lambda: _text_of(node.get("pre_tokenizer")),
            "metadata": lambda: _metadata(node.get("metadata")),
            "rewrite_gguf": lambda: _flag(node.get("rewrite_gguf")),
            "outputs": lambda: tuple(self._outputs(node.get("outputs"))),
            "remote_host": lambda: _remote_host(node.get("remote_host")),
            "template": lambda: self._template(node.get("template")),
            "system": lambda: self._text(node.get("system")),
            "licenses": lambda: self._licenses(node.get("license")),
            "parameters": lambda: _parameters(node.get("parameters")),
            "messages": lambda: self._messages(node.get("messages")),
            "renderer": lambda: _text_of(node.get("renderer")),
            "parser": lambda: _text_of(node.get("parser")),
            "requires": lambda: self._requires(node.get("requires")),
            "info": lambda: _mapping(node.get("info")),
            "cleared": lambda: frozenset(_cleared(node)),
        }

    def check_texts(self, node: MappingNode, problems: ProblemCollector) -> None:
        """What is wrong with the name and the template of a model that cannot be read, for something else is wrong."""
        value, template = node.get("model"), node.get("template")
        text = _text_of(value)
        if value is not None and text and INTERPOLATION not in text:
            with problems.collect():
                located(partial(parse_name, text), value.position)
        file = template.get("file") if isinstance(template, MappingNode) else template
        if isinstance(file, ScalarNode) and INTERPOLATION not in _text_of(file):
            with problems.collect():
                self._template(template)

    def _name(self, model_id: str, node: MappingNode, position: Position) -> ModelName:
        for field in ("model", "name"):
            value, text = node.get(field), _text_of(node.get(field))
            if value is not None and text:
                return _parsed_name(text, value.position)
        if "model" not in node.entries and model_id:
            return located(lambda: parse_name(model_id), position)
        raise RecipeError("MISSING", "the model has no name", position, hint="add 'model: NAME'")

    def _base(self, node: MappingNode) -> FromName | FromPath | FromModel | None:
        value = node.get("from")
        if isinstance(value, MappingNode):
            return FromModel(_text_of(value.get("model")), value.entries["model"].position)
        if value is None or not _text_of(value).strip():
            return None
        text = _text_of(value).strip()
        if text.startswith(PATH_STARTS) or text in (".", ".."):
            return FromPath(
                located(lambda: self._roots.source(text, directory_of(value)), value.position), value.position
            )
        _check_reference(text, value.position)
        return FromName(text, value.position)

    # -- paths and texts -----------------------------------------------------------------------------------------

    def _path_of(self, value: Node | None) -> Path | None:
        if value is None or not _text_of(value):
            return None
        return located(lambda: self._roots.path(_text_of(value), directory_of(value)), value.position)

    def _outputs(self, value: Node | None) -> Iterator[Output]:
        for kind, item in value.entries.items() if isinstance(value, MappingNode) else ():
            path = self._path_of(item)
            if path is not None:
                yield Output(kind, path, item.position)

    def _text(self, value: Node | None) -> str:
        """The text of a field: as it stands, or from the file it names."""
        if not isinstance(value, MappingNode):
            return _text_of(value)
        file = value.entries["file"]
        path = located(lambda: self._roots.path(_text_of(file), directory_of(file)), file.position)
        if path not in self._texts:
            self._texts[path] = located(lambda: read_text_file(path, self._roots), file.position)
        return self._texts[path]

    def _template(self, value: Node | None) -> str:
        text = self._text(value)
        if value is None or not text or text in self._checked_templates:
            return text
        from modelbuild.template import TemplateError, check_template, mistyped_fields

        try:
            template = check_template(text)
        except TemplateError as error:
            position, named = self._place_in_template(error.line, error.column, value)
            raise RecipeError("TEMPLATE", f"{error.message}{named}", position, hint=error.hint) from error
        self._checked_templates.add(text)
        for line, column, name, meant in mistyped_fields(template):
            position, named = self._place_in_template(line, column, value)
            message = f"no conversation has .{printable(name)}{named}; did you mean .{meant}?"
            self.warnings.append(RecipeWarning("UNKNOWN", message, position))
        return text

    def _place_in_template(self, line: int, column: int, value: Node) -> tuple[Position, str]:
        """A place in the recipe, or in the template's own file and then where the recipe names it."""
        if isinstance(value, ScalarNode):
            return value.position_in(line, column), ""
        file = value.entries["file"] if isinstance(value, MappingNode) else value
        path = self._roots.path(_text_of(file), directory_of(file))
        return Position(str(path), line, column), f" (named at {file.position})"

    def _licenses(self, value: Node | None) -> tuple[str, ...]:
        if isinstance(value, SequenceNode):
            return tuple(self._text(item) for item in value.items)
        text = self._text(value)
        return (text,) if text else ()

    def _messages(self, value: Node | None) -> tuple[Mapping[str, object], ...]:
        messages: list[Mapping[str, object]] = []
        for item in value.items if isinstance(value, SequenceNode) else ():
            plain = to_plain(item)
            if isinstance(plain, dict) and isinstance(item, MappingNode):
                plain["content"] = self._text(item.get("content"))
                messages += located(partial(normalize_messages, [plain]), item.position)
                self._warn_of_role(item)
        return tuple(messages)

    def _warn_of_role(self, message: MappingNode) -> None:
        """Say that no template knows this role; it is stored all the same, as Ollama does."""
        role = message.get("role")
        text = _text_of(role)
        if role is not None and text and text.lower() not in _ROLES:
            near = similar_names(text.lower(), _ROLES, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            what = f"unknown role {printable(text)!r} is stored as it is{meant}"
            self.warnings.append(RecipeWarning("UNKNOWN", what, role.position))

    def _requires(self, value: Node | None) -> str:
        text = _text_of(value)
        if value is not None and text and _SEMVER.fullmatch(text) is None:
            message = f"{printable(text)!r} is no version such as 0.14.0; it is stored as it is"
            self.warnings.append(RecipeWarning("VERSION", message, value.position))
        return text


def directory_of(node: Node) -> Path:
    """Where relative paths in a node start: beside the file it stands in."""
    return Path(node.position.path).parent


def read_text_file(path: Path, roots: AllowedRoots) -> str:
    """The UTF-8 text of a file below the roots, unchanged; InputError PATH, LINK, NOTREGULAR, LIMIT or TEXT."""
    try:
        source = open_input(path)
    except InputError as error:
        raise with_near_names(error, path) from error
    with source:
        roots.confirm(source)
        if source.size_bytes > TEXT_FILE_LIMIT_BYTES:
            message = f"{source.size_bytes:,} bytes, at most {TEXT_FILE_LIMIT_BYTES:,} allowed for a text"
            raise InputError("LIMIT", message, path=path)
        data = source.read_at(0, source.size_bytes)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "save the file as UTF-8"
        raise InputError("TEXT", "not UTF-8 text", path=path, offset=error.start, hint=hint) from error


def _text_of(value: Node | None) -> str:
    return str(value.value) if isinstance(value, ScalarNode) and value.value is not None else ""


def _flag(value: Node | None) -> bool:
    return isinstance(value, ScalarNode) and value.value is True


def _parsed_name(text: str, position: Position) -> ModelName:
    try:
        return parse_name(text)
    except InputError as error:
        hint = (
            "${…} is an expression where the recipe has 'variables:' or a matrix"
            if INTERPOLATION in text
            else error.hint
        )
        raise RecipeError(error.code, error.message, position, hint=hint) from error


def _check_reference(text: str, position: Position) -> None:
    """RecipeError MODELNAME for a `from` that can name no model, here or on another server."""
    reference, _ = located(lambda: split_source(text), position)
    try:
        parse_name(reference)
    except InputError as error:
        if "://" in text:
            hint = "nothing is downloaded while building; download the model and give its path, with ./ in front"
            raise RecipeError("PATH", f"an address is no model: {printable(text)!r}", position, hint=hint) from error
        hint = f"a file or directory is named with ./ in front: ./{printable(text)}"
        raise RecipeError(error.code, error.message, position, hint=hint) from error


def _remote_host(value: Node | None) -> str:
    text = _text_of(value)
    return located(lambda: normalize_remote_host(text), value.position) if value is not None and text else ""


def _parameters(value: Node | None) -> Mapping[str, object] | None:
    """The parameters to store; those that the recipe drops are in `cleared` instead."""
    if not isinstance(value, MappingNode):
        return None
    plain: dict[str, object] = {name: to_plain(item) for name, item in value.entries.items() if not is_clearing(item)}
    if isinstance(plain.get("stop"), str):
        plain["stop"] = [plain["stop"]]
    return plain or None


def _cleared(node: MappingNode) -> Iterator[str]:
    """What null keeps from coming down from the base model."""
    yield from (field for field in CLEARABLE if is_clearing(node.get(field)))
    parameters, info = node.get("parameters"), node.get("info")
    if isinstance(parameters, MappingNode):
        yield from (f"parameters.{name}" for name, item in parameters.entries.items() if is_clearing(item))
    if isinstance(info, MappingNode) and is_clearing(info.get("capabilities")):
        yield "capabilities"


def _mapping(value: Node | None) -> Mapping[str, object] | None:
    plain = None if value is None else to_plain(value)
    if not isinstance(plain, dict):
        return None
    return {key: item for key, item in plain.items() if item is not None} or None


def _tensor_types(value: Node | None) -> Iterator[TensorTypeRule]:
    for item in value.items if isinstance(value, SequenceNode) else ():
        if isinstance(item, MappingNode):
            pattern = item.entries["pattern"]
            _check_pattern(_text_of(pattern), pattern)
            yield TensorTypeRule(_text_of(pattern), _text_of(item.entries["type"]).upper(), item.position)


def _check_pattern(text: str, node: Node) -> None:
    if len(text) > PATTERN_LIMIT:
        message = f"a pattern of {len(text)} characters, at most {PATTERN_LIMIT} allowed"
        raise RecipeError("LIMIT", message, node.position)
    try:
        re.compile(text, re.IGNORECASE | re.ASCII)
    except re.error as error:
        position = node.position_of(error.pos or 0) if isinstance(node, ScalarNode) else node.position
        hint = r"for example 'ffn_down' or '^output\.weight$'"
        raise RecipeError("TYPE", f"not a regular expression: {error.msg}", position, hint=hint) from error


def _metadata(value: Node | None) -> Mapping[str, MetadataValue]:
    if not isinstance(value, MappingNode):
        return {}
    for key, position in value.keys.items():
        located(partial(check_key, key.encode()), position)
    return {key: _metadata_value(item) for key, item in value.entries.items()}


def _metadata_value(item: Node) -> MetadataValue:
    type_ = ""
    value: Node = item
    if isinstance(item, MappingNode):
        type_, value = _text_of(item.entries["type"]), item.entries["value"]
    plain = to_plain(value)
    made = tuple(plain) if isinstance(plain, list) else plain
    return MetadataValue(made, type_, item.position)  # type: ignore[arg-type]  # the schema admits these types only
