"""Nodes to resolved models: names parsed, paths and text files followed, rules across fields checked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from modelbuild.digest import Digest, is_digest
from modelbuild.errors import InputError, ModelbuildError, Position, ProblemCollector, RecipeError, printable
from modelbuild.formats.files import open_input
from modelbuild.model_name import ModelName, parse_name
from modelbuild.recipe.messages import normalize_messages
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode, to_plain
from modelbuild.recipe.reference import normalize_remote_host
from modelbuild.recipe.resolved import FileEntry, FromModel, FromName, FromPath, Recipe, ResolvedModel
from modelbuild.recipe.schema import check_document, load_schema
from modelbuild.recipe.text import TEXT_LIMIT_BYTES, parse_recipe_text

SCHEMA = "recipe.schema.json"
#: A template, system prompt or licence; larger ones are mistakes (a model file named by accident).
TEXT_FILE_LIMIT_BYTES = 4 << 20
_PATH_STARTS = ("./", "../", "/", "~")
_T = TypeVar("_T")
_SOURCE_FIELDS = (
    "files",
    "adapters",
    "draft_files",
    "quantize",
    "quantization",
    "intermediate",
    "pre_tokenizer",
)


def load_recipe(path: Path) -> Recipe:
    """A recipe file, resolved; raises one error or `Problems` with all that is wrong with it."""
    with open_input(path) as source:
        if source.size_bytes > TEXT_LIMIT_BYTES:
            position = Position(str(path), 1, 1)
            message = f"{source.size_bytes:,} bytes, at most {TEXT_LIMIT_BYTES:,} allowed"
            raise RecipeError("LIMIT", message, position, hint="is this a recipe?")
        data = source.read_at(0, source.size_bytes)
    return resolve_recipe(parse_recipe_text(data, str(path)), path)


def resolve_recipe(root: Node, path: Path) -> Recipe:
    """The models of a parsed recipe; `path` is the file that its relative paths start from."""
    problems = ProblemCollector()
    check_document(root, SCHEMA, problems)
    problems.finish()
    if not isinstance(root, MappingNode):
        raise AssertionError("the schema admits mappings only")
    resolver = _Resolver(path, problems)
    models = [model for model in resolver.models(root) if model is not None]
    problems.finish()
    _check_distinct(models)
    return Recipe(path, tuple(_in_build_order(models)), tuple(resolver.files), tuple(resolver.warnings))


class _Resolver:
    """Resolves the models of one file; remembers the files it read and what to warn about."""

    def __init__(self, path: Path, problems: ProblemCollector) -> None:
        self._directory = path.parent
        self._problems = problems
        self.files: list[Path] = [path]
        self.warnings: list[str] = []

    def models(self, root: MappingNode) -> Iterator[ResolvedModel | None]:
        """Each model of the recipe, or None where it has an error (which is collected)."""
        models = root.get("models")
        if not isinstance(models, MappingNode):
            yield self._model("", root, root.position)
            return
        for key, node in models.entries.items():
            if isinstance(node, MappingNode):
                yield self._model(key, node, models.keys[key])

    def _model(self, key: str, node: MappingNode, position: Position) -> ResolvedModel | None:
        before = len(self._problems.errors)
        model = None
        with self._problems.collect():
            self._check_sources(node, position)
        with self._problems.collect():
            model = self._resolve(key, node, position)
        return model if len(self._problems.errors) == before else None

    def _check_sources(self, node: MappingNode, position: Position) -> None:
        if "from" in node.entries and "files" in node.entries:
            raise RecipeError(
                "CONFLICT",
                "both 'from' and 'files' are given",
                node.keys["files"],
                hint="remove one of the two",
            )
        if "from" not in node.entries and "files" not in node.entries:
            raise RecipeError(
                "MISSING",
                "neither 'from' nor 'files' was specified",
                position,
                hint="add 'from: NAME', 'from: ./PATH' or 'files:'",
            )
        if "remote_host" in node.entries:
            self._check_remote(node)

    def _check_remote(self, node: MappingNode) -> None:
        for field in _SOURCE_FIELDS:
            if field in node.entries:
                message = f"{field!r} has no effect on a remote model"
                raise RecipeError("CONFLICT", message, node.keys[field], hint="remove it, or remove 'remote_host'")
        if not isinstance(node.get("from"), ScalarNode):
            raise RecipeError("CONFLICT", "'remote_host' needs 'from: NAME'", node.keys["remote_host"])

    def _resolve(self, key: str, node: MappingNode, position: Position) -> ResolvedModel:
        quantize_key = "quantize" if "quantize" in node.entries else "quantization"
        remote_host = self._string(node, "remote_host")
        if remote_host:
            remote_host = _located(lambda: normalize_remote_host(remote_host), node.entries["remote_host"].position)
        return ResolvedModel(
            id=key,
            name=self._name(key, node, position),
            position=position,
            base=self._base(node),
            files=self._file_set(node, "files"),
            adapters=self._file_set(node, "adapters"),
            draft_files=self._file_set(node, "draft_files"),
            quantize=self._string(node, quantize_key),
            quantize_position=node.keys.get(quantize_key),
            intermediate=self._string(node, "intermediate"),
            pre_tokenizer=self._string(node, "pre_tokenizer"),
            rewrite_gguf=node.get("rewrite_gguf") is not None and bool(to_plain(node.entries["rewrite_gguf"])),
            remote_host=remote_host,
            template=self._text(node.get("template")),
            system=self._text(node.get("system")),
            licenses=self._licenses(node.get("license")),
            parameters=self._parameters(node.get("parameters")),
            messages=self._messages(node.get("messages")),
            renderer=self._string(node, "renderer"),
            parser=self._string(node, "parser"),
            requires=self._string(node, "requires"),
            info=self._mapping(node.get("info")),
        )

    def _name(self, key: str, node: MappingNode, position: Position) -> ModelName:
        for field in ("model", "name"):
            if text := self._string(node, field):
                return _parse_name(text, node.entries[field].position)
        if not key:
            raise RecipeError("MISSING", "the model has no name", position, hint="add 'model: NAME'")
        return _parse_name(key, position)

    def _base(self, node: MappingNode) -> FromName | FromPath | FromModel | None:
        value = node.get("from")
        if value is None:
            return None
        if isinstance(value, MappingNode):
            return FromModel(self._string(value, "model"), value.position)
        text = self._string(node, "from").strip()
        if text.startswith(_PATH_STARTS):
            return FromPath(self._path(text), value.position)
        if "remote_host" not in node.entries:
            _parse_name(text, value.position)
        return FromName(text, value.position)

    def _file_set(self, node: MappingNode, field: str) -> tuple[FileEntry, ...]:
        value = node.get(field)
        if value is None:
            return ()
        entries = list(self._file_entries(value))
        if not entries:
            raise RecipeError("MISSING", f"'{field}' is empty", value.position, hint="name a file, or remove the field")
        return tuple(sorted(entries, key=lambda entry: entry.name.encode()))

    def _file_entries(self, value: Node) -> Iterator[FileEntry]:
        if isinstance(value, MappingNode):
            for name, content in value.entries.items():
                _check_file_name(name, value.keys[name])
                text = str(to_plain(content))
                yield FileEntry(name, Digest(text) if is_digest(text) else self._path(text), content.position)
            return
        seen: dict[str, Position] = {}
        for item in value.items if isinstance(value, SequenceNode) else (value,):
            path = self._path(str(to_plain(item)))
            if path.name in seen:
                message = f"a second file called {printable(path.name)!r}"
                raise RecipeError("DUPLICATE", message, item.position, hint="use a mapping of names to paths")
            seen[path.name] = item.position
            yield FileEntry(path.name, path, item.position)

    def _path(self, text: str) -> Path:
        return self._directory / Path(text).expanduser()

    def _string(self, node: MappingNode, field: str) -> str:
        value = node.get(field)
        return "" if value is None else str(to_plain(value) or "")

    def _text(self, value: Node | None) -> str:
        if not isinstance(value, MappingNode):
            return "" if value is None else str(to_plain(value) or "")
        file = value.entries["file"]
        path = self._path(str(to_plain(file)))
        self.files.append(path)
        return _located(lambda: _read_text(path), file.position)

    def _licenses(self, value: Node | None) -> tuple[str, ...]:
        if isinstance(value, SequenceNode):
            return tuple(self._text(item) for item in value.items)
        text = self._text(value)
        return (text,) if text else ()

    def _parameters(self, value: Node | None) -> Mapping[str, object] | None:
        if not isinstance(value, MappingNode):
            return None
        known = load_schema(SCHEMA)["$defs"]["parameters"]["properties"]
        for name, position in value.keys.items():
            if name not in known:
                near = difflib.get_close_matches(name, list(known), n=2)
                meant = f"; did you mean {' or '.join(near)}?" if near else ""
                self.warnings.append(f"{position}: unknown parameter {printable(name)!r} is stored as it is{meant}")
        plain: dict[str, object] = {name: to_plain(item) for name, item in value.entries.items()}
        if isinstance(plain.get("stop"), str):
            plain["stop"] = [plain["stop"]]
        return plain

    def _messages(self, value: Node | None) -> tuple[Mapping[str, object], ...]:
        if value is None:
            return ()
        plain = to_plain(value)
        if not isinstance(plain, list):
            raise AssertionError("the schema admits lists only")
        return _located(lambda: normalize_messages(plain), value.position)

    def _mapping(self, value: Node | None) -> Mapping[str, object] | None:
        plain = None if value is None else to_plain(value)
        return dict(plain) if isinstance(plain, dict) else None


def _parse_name(text: str, position: Position) -> ModelName:
    return _located(lambda: parse_name(text), position)


def _located(read: Callable[[], _T], position: Position) -> _T:
    """Run a reader and give the error it raises a place in the recipe."""
    try:
        return read()
    except InputError as error:
        raise RecipeError(error.code, _spoken(error), position, hint=error.hint) from error


def _spoken(error: ModelbuildError) -> str:
    return f"{error.where}: {error.message}" if error.where else error.message


def _read_text(path: Path) -> str:
    with open_input(path) as source:
        if source.size_bytes > TEXT_FILE_LIMIT_BYTES:
            message = f"{source.size_bytes:,} bytes, at most {TEXT_FILE_LIMIT_BYTES:,} allowed for a text"
            raise InputError("LIMIT", message, path=path)
        data = source.read_at(0, source.size_bytes)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("TEXT", "not UTF-8 text", path=path, offset=error.start) from error


def _check_file_name(name: str, position: Position) -> None:
    """Names of `files` are relative, with `/` between plain components (Go's fs.ValidPath)."""
    parts = name.split("/")
    if name != "." and any(part in ("", ".", "..") for part in parts):
        message = f"file path must be relative: {printable(name)!r}"
        raise RecipeError("PATH", message, position, hint="for example 'model.gguf' or 'shards/a.safetensors'")


def _check_distinct(models: Sequence[ResolvedModel]) -> None:
    problems = ProblemCollector()
    first: dict[str, ResolvedModel] = {}
    for model in models:
        text = str(model.name).lower()
        if text in first:
            message = f"a second model named {model.name}; the first is at line {first[text].position.line}"
            problems.add(RecipeError("DUPLICATE", message, model.position, hint="give one of them another 'model:'"))
        first.setdefault(text, model)
    problems.finish()


def _in_build_order(models: Sequence[ResolvedModel]) -> list[ResolvedModel]:
    """Bases before what builds on them, otherwise in recipe order; unknown keys and cycles are errors."""
    by_id = {model.id: model for model in models}
    ordered: dict[str, ResolvedModel] = {}
    for model in models:
        chain: list[ResolvedModel] = []
        current: ResolvedModel | None = model
        while current is not None and current.id not in ordered:
            if current in chain:
                path = " → ".join([item.id for item in chain[chain.index(current) :]] + [current.id])
                raise RecipeError("CYCLE", f"models build on each other: {path}", current.position)
            chain.append(current)
            current = _base_in_recipe(current, by_id)
        for item in reversed(chain):
            ordered[item.id] = item
    return list(ordered.values())


def _base_in_recipe(model: ResolvedModel, by_id: Mapping[str, ResolvedModel]) -> ResolvedModel | None:
    if not isinstance(model.base, FromModel):
        return None
    if model.base.id not in by_id:
        near = difflib.get_close_matches(model.base.id, list(by_id), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"models of this recipe: {', '.join(by_id)}"
        raise RecipeError(
            "UNKNOWN", f"no model {printable(model.base.id)!r} in this recipe", model.base.position, hint=hint
        )
    return by_id[model.base.id]
