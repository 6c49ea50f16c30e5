"""The files of a recipe: the one the user names and those it includes, read, checked and put together."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import field
from functools import cache
from pathlib import Path

from modelbuild.errors import InputError, Position, ProblemCollector, RecipeError, printable
from modelbuild.formats.files import is_directory, is_regular, open_input
from modelbuild.recipe.inheritance import SCHEMA, RawModel, merge_fields, model_fields
from modelbuild.recipe.located import locate, located, with_near_names
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode, to_plain, with_loud_nulls
from modelbuild.recipe.resolved import RecipeWarning
from modelbuild.recipe.roots import AllowedRoots
from modelbuild.recipe.schema import check_node, properties_of
from modelbuild.recipe.schema_checker import Findings
from modelbuild.recipe.text_kind import JSON_LIMIT_BYTES, TEXT_LIMIT_BYTES, is_modelfile, looks_like_json
from modelbuild.recipe.variables import Variable, merge_variables, read_variables
from modelbuild.records import record

#: Budgets of includes: files in all, and files that include files that include …
INCLUDE_LIMIT = 64
INCLUDE_DEPTH_LIMIT = 8
_DEFAULT_RECIPE = Path("recipe.yaml")
#: Keys of a file that are no fields of its one model.
_FILE_KEYS = ("version", "variables", "include")
_MULTI_KEYS = ("models", "defaults", "groups")

Parse = Callable[[bytes, Path], Node]


@record(frozen=False)
class Document:
    """Everything that a file and its includes say. models and groups keep the order of the text."""

    variables: dict[str, Variable] = field(default_factory=dict)
    defaults: MappingNode | None = None
    models: dict[str, RawModel] = field(default_factory=dict)
    groups: dict[str, tuple[Position, tuple[ScalarNode, ...]]] = field(default_factory=dict)
    own_variables: frozenset[str] = frozenset()


def parse_recipe(data: bytes, path: Path) -> Node:
    """The root node of a recipe in YAML or JSON."""
    from modelbuild.recipe.text import parse_recipe_text

    return parse_recipe_text(data, str(path))


def read_limited(path: Path, roots: AllowedRoots | None = None) -> bytes:
    """The bytes of a recipe; RecipeError LIMIT before it is read when the file is too large to be one.

    roots: where it must lie; None for a recipe that the user names.
    """
    try:
        source = open_input(path)
    except InputError as error:
        if error.code == "NOTREGULAR" and is_directory(path):
            raise InputError(error.code, error.message, path=error.path, hint=_recipe_of(path)) from error
        raise
    with source:
        if roots is not None:
            roots.confirm(source)
        if source.size_bytes > TEXT_LIMIT_BYTES:
            from modelbuild.formats.modelfile import SIZE_LIMIT_BYTES as MODELFILE_LIMIT_BYTES
            from modelbuild.recipe.text import too_large

            head = source.read_at(0, 4096)
            limit = JSON_LIMIT_BYTES if looks_like_json(head) else MODELFILE_LIMIT_BYTES
            if source.size_bytes > limit or not (looks_like_json(head) or is_modelfile(path, head)):
                raise too_large(str(path), source.size_bytes)
        return source.read_at(0, source.size_bytes)


def _instead_of(path: Path) -> str:
    """What to type where no recipe is; a name of a model, perhaps, where one is beside it."""
    if not path.suffix and path.name == str(path) and is_regular(_DEFAULT_RECIPE):
        return f"a model is named behind its recipe: {_DEFAULT_RECIPE} {printable(str(path))}"
    return "'modelbuild init SOURCE' writes a first recipe"


def _recipe_of(directory: Path) -> str:
    """What to type instead of a directory."""
    for name in (_DEFAULT_RECIPE, "Modelfile"):
        if is_regular(directory / name):
            return f"name the file: {printable(str(directory / name))}"
    if is_regular(directory / "config.json"):
        return f"'modelbuild init {printable(str(directory))}' writes a recipe for a checkpoint"
    return "a recipe is a YAML file, a JSON file or a Modelfile"


class DocumentReader:
    """Reads a recipe and what it includes; remembers the files and what to warn about."""

    def __init__(self, roots: AllowedRoots, problems: ProblemCollector, parse: Parse = parse_recipe) -> None:
        self._roots = roots
        self._problems = problems
        self._parse = parse
        self._done: dict[str, Document] = {}
        self.files: list[Path] = []
        self.warnings: list[RecipeWarning] = []

    def read(self, path: Path) -> Document:
        """The document of the recipe that the user names."""
        try:
            data = read_limited(path)
        except InputError as error:
            raise with_near_names(error, path, _instead_of(path)) from error
        return self._read(path, data, [])

    def from_node(self, root: Node, path: Path) -> Document:
        """The document of a recipe that is parsed already."""
        return self._document(_with_meaning_of_null(root), path, [])

    def _read(self, path: Path, data: bytes, chain: list[Path]) -> Document:
        root = self._parse(data, path)
        return self._document(_with_meaning_of_null(root) if looks_like_json(data) else root, path, chain)

    def _document(self, root: Node, path: Path, chain: list[Path]) -> Document:
        self.files.append(path)
        checked = self._checked(root)
        document = self._done[os.path.realpath(path)] = Document()
        if not isinstance(checked, MappingNode):
            return document
        document.variables = read_variables(checked.get("variables"))
        document.own_variables = frozenset(document.variables)
        inherited: MappingNode | None = None
        for other in self._included(checked, path, chain):
            document.variables = merge_variables(document.variables, other.variables)
            self._add(document, other)
            inherited = _merged(inherited, other.defaults)
        defaults = checked.get("defaults")
        document.defaults = _merged(inherited, defaults if isinstance(defaults, MappingNode) else None)
        self._add(document, self._own(checked, document.defaults, is_included=bool(chain)))
        return document

    def _checked(self, root: Node) -> Node:
        """The root with scalars typed; misplaced fields and violations of the schema are collected."""
        if isinstance(root, MappingNode) and any(key in root.entries for key in _MULTI_KEYS):
            misplaced = [key for key in root.entries if key in model_fields()]
            for key in misplaced:
                message = f"{key!r} is a field of a model and cannot stand beside 'models', 'defaults' or 'groups'"
                hint = "write it below the key of a model, or below 'defaults' for all of them"
                self._problems.add(RecipeError("CONFLICT", message, root.keys[key], hint=hint))
            root = root.without(*misplaced)
        return check_node(root, SCHEMA, "", Findings(self._problems, self.warnings, is_final=False))

    def _own(self, root: MappingNode, defaults: MappingNode | None, *, is_included: bool) -> Document:
        """The models and groups of the file itself."""
        document = Document()
        models = root.get("models")
        if isinstance(models, MappingNode):
            for key, node in models.entries.items():
                if isinstance(node, MappingNode):
                    document.models[key] = RawModel(key, models.keys[key], node, defaults)
        elif root.entries.keys() & model_fields():
            if is_included:
                message = "a file that is included names its models"
                hint = "put the fields below 'models:' and a key"
                self._problems.add(RecipeError("CONFLICT", message, root.position, hint=hint))
                return document
            document.models[""] = RawModel("", root.position, root.without(*_FILE_KEYS), defaults)
        groups = root.get("groups")
        if isinstance(groups, MappingNode):
            document.groups = {key: (groups.keys[key], _members(node)) for key, node in groups.entries.items()}
        return document

    def _add(self, document: Document, other: Document) -> None:
        """Add models and groups of another document; a key that both have is an error."""
        for key, model in other.models.items():
            if key in document.models:
                self._refuse_twice("model", key, model.position, document.models[key].position)
            document.models.setdefault(key, model)
        for key, group in other.groups.items():
            if key in document.groups:
                self._refuse_twice("group", key, group[0], document.groups[key][0])
            document.groups.setdefault(key, group)

    def _refuse_twice(self, what: str, key: str, position: Position, first: Position) -> None:
        message = f"a second {what} with the key {printable(key)!r}; the first is at {first}"
        hint = "give one of them another key; 'extends' takes over the fields of a model"
        self._problems.add(RecipeError("DUPLICATE", message, position, hint=hint))

    # -- includes ------------------------------------------------------------------------------------------------

    def _included(self, root: MappingNode, path: Path, chain: list[Path]) -> list[Document]:
        value = root.get("include")
        found = []
        for item in value.items if isinstance(value, SequenceNode) else (value,):
            if isinstance(item, ScalarNode):
                with self._problems.collect():
                    found.append(self._include(item, path, [*chain, path]))
        return found

    def _include(self, item: ScalarNode, path: Path, chain: list[Path]) -> Document:
        """The document of one include; without models and groups when another include has brought them in already."""
        position = item.position
        target = located(lambda: self._roots.path(str(to_plain(item)), path.parent), position)
        self._check_include(target, chain, position)
        known = self._done.get(os.path.realpath(target))
        if known is not None:
            return Document(known.variables, known.defaults)
        try:
            data = read_limited(target, self._roots)
        except InputError as error:
            raise locate(with_near_names(error, target), position) from error
        return self._read(target, data, chain)

    def _check_include(self, target: Path, chain: list[Path], position: Position) -> None:
        real = os.path.realpath(target)
        places = [os.path.realpath(path) for path in chain]
        if real in places:
            loop = [path.name for path in chain[places.index(real) :]] + [target.name]
            message = f"recipes include each other: {' → '.join(map(printable, loop))}"
            raise RecipeError("YAML", message, position, hint="remove one 'include'")
        if len(chain) > INCLUDE_DEPTH_LIMIT:
            raise RecipeError("LIMIT", f"includes nested deeper than {INCLUDE_DEPTH_LIMIT} files", position)
        if len(self.files) > INCLUDE_LIMIT:
            raise RecipeError("LIMIT", f"more than {INCLUDE_LIMIT} included files", position)


def _with_meaning_of_null(root: Node) -> Node:
    """A JSON document whose nulls drop what is inherited, as in YAML, unless it is a create request.

    In Ollama's API null says nothing; whoever writes a field that only recipes have does not write a request.
    """
    if not isinstance(root, MappingNode) or root.entries.keys() <= _request_fields():
        return root
    return with_loud_nulls(root)


@cache
def _request_fields() -> frozenset[str]:
    return frozenset(properties_of("create-request.schema.json", ""))


def _merged(base: MappingNode | None, own: MappingNode | None) -> MappingNode | None:
    if base is None or own is None:
        return own if base is None else base
    return merge_fields(base, own)


def _members(node: Node) -> tuple[ScalarNode, ...]:
    items = node.items if isinstance(node, SequenceNode) else (node,)
    return tuple(item for item in items if isinstance(item, ScalarNode))
