"""The published JSON Schemas, compiled once into checkers that know positions, word errors and type scalars.

Why not a library at run time: the checker has to tell a plain `017` from a quoted one, let `${name}` stand where a
number belongs until it has its value, and give every violation its place. It understands exactly the keywords that
our own schemas use and refuses to compile others; a test holds it to the `jsonschema` library's verdicts.

Own keywords, which editors ignore: `x-expected` words an error, `x-names` closes `examples` ignoring case,
`x-unknown` turns unknown keys into warnings, `x-instead` names the successor of a deprecated field, `x-merge` documents
inheritance. The pattern `\\$\\{` beside other types marks a field where interpolation may stand.

The schema files stand in `schemas/` of the repository and inside the package when it is installed from a wheel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cache
from pathlib import Path
from typing import Any

from modelbuild.errors import Position, ProblemCollector, RecipeError, printable
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode
from modelbuild.recipe.resolved import RecipeWarning
from modelbuild.recipe.scalars import Scalar, read_plain
from modelbuild.recipe.text_kind import MODELFILE_HINT, begins_with_command
from modelbuild.records import record
from modelbuild.similar_names import similar_names

INTERPOLATION = "${"
_INTERPOLATION_PATTERN = r"\$\{"
_TYPE_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_KINDS: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    dict: "object",
    list: "array",
}
_KEYWORDS = frozenset(
    [
        "$ref",
        "type",
        "properties",
        "additionalProperties",
        "items",
        "required",
        "enum",
        "minimum",
        "minLength",
        "minItems",
        "minProperties",
        "pattern",
        "propertyNames",
        "if",
        "then",
        "else",
        "anyOf",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "$schema",
        "$id",
        "$defs",
        "x-expected",
        "x-names",
        "x-unknown",
        "x-instead",
        "x-merge",
    ]
)


def _directory() -> Path:
    packaged = Path(__file__).parents[1] / "schemas"
    return packaged if packaged.is_dir() else packaged.parents[1] / "schemas"


def schema_names() -> list[str]:
    """The file names of all published schemas, sorted."""
    return sorted(item.name for item in _directory().iterdir() if item.name.endswith(".schema.json"))


@cache
def load_schema(name: str) -> Mapping[str, Any]:
    """A schema by its file name, from the installed package or the source tree."""
    schema = json.loads(_directory().joinpath(name).read_text("utf-8"))
    if not isinstance(schema, dict):
        raise TypeError(f"{name} is not a JSON object")
    return schema


@record(frozen=False)
class Findings:
    """What a check gathers; is_final: every `${name}` has got its value."""

    problems: ProblemCollector
    warnings: list[RecipeWarning]
    is_final: bool = True


def check_node(node: Node, schema_name: str, pointer: str, findings: Findings) -> Node:
    """The node with scalars typed as its fields want them; one error in `findings` for every violation.

    pointer: "" for the whole schema, or a JSON pointer such as "/$defs/model" to a part of it.
    """
    return _compiled(schema_name, pointer).check(node, findings, ())


def properties_of(schema_name: str, pointer: str) -> Mapping[str, Mapping[str, Any]]:
    """The properties of the object at a pointer of a schema, with references followed."""
    schema = load_schema(schema_name)
    part = _follow(schema, _at_pointer(schema, pointer))
    return {name: _follow(schema, item) for name, item in part["properties"].items()}


def unknown_field(
    key: str, allowed: Iterable[str], position: Position, where: str, *, deeper: Sequence[str] = ()
) -> RecipeError:
    """The error for a field that does not exist, with the nearest ones that do; deeper: where it would be one."""
    names = list(allowed)
    if deeper:
        hint = f"write it as {' or '.join(map(repr, deeper))}"
        return RecipeError("UNKNOWN", f"unknown field {printable(key)!r} in {where}", position, hint=hint)
    near = similar_names(key.lower(), names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known fields: {', '.join(names)}"
    return RecipeError("UNKNOWN", f"unknown field {printable(key)!r} in {where}", position, hint=hint)


@cache
def _compiled(schema_name: str, pointer: str) -> _Checker:
    schema = load_schema(schema_name)
    return _compile(_at_pointer(schema, pointer), schema, {})


def _at_pointer(schema: Mapping[str, Any], pointer: str) -> Mapping[str, Any]:
    part: Any = schema
    for step in pointer.split("/")[1:]:
        part = part[step]
    if not isinstance(part, dict):
        raise TypeError(f"{pointer} is no schema")
    return part


def _follow(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part with its reference resolved; what stands beside the reference wins."""
    while "$ref" in part:
        target = _at_pointer(schema, part["$ref"].removeprefix("#"))
        part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
    return part


def _compile(part: Mapping[str, Any], schema: Mapping[str, Any], known: dict[int, _Checker]) -> _Checker:
    if id(part) in known:
        return known[id(part)]
    checker = known[id(part)] = _Checker()
    whole = _follow(schema, part)
    unknown = set(whole) - _KEYWORDS
    if unknown:
        raise ValueError(f"keywords that the checker does not know: {', '.join(sorted(unknown))}")
    checker.condition = whole.get("if")
    checker.branches = _Checkers({key: whole[key] for key in ("then", "else") if key in whole}, schema, known)
    types = whole.get("type", list(_TYPE_NAMES))
    checker.types = frozenset([types] if isinstance(types, str) else types)
    pattern = whole.get("pattern")
    if pattern == _INTERPOLATION_PATTERN:
        checker.may_interpolate = True
        checker.types -= {"string"}
    elif pattern is not None:
        checker.pattern = re.compile(pattern, re.ASCII)
    checker.properties = _Checkers(whole.get("properties", {}), schema, known)
    extra = whole.get("additionalProperties", True)
    checker.extra = _compile(extra, schema, known) if isinstance(extra, dict) else None
    checker.is_closed = extra is False
    if "items" in whole:
        checker.items = _compile(whole["items"], schema, known)
    if "propertyNames" in whole:
        checker.key_pattern = re.compile(whole["propertyNames"]["pattern"], re.ASCII)
    checker.required = tuple(whole.get("required", ()))
    checker.keywords = {
        key: whole[key] for key in ("enum", "minimum", "minLength", "minItems", "minProperties") if key in whole
    }
    checker.names = {str(item).upper(): item for item in whole["examples"]} if whole.get("x-names") else {}
    checker.title = str(whole.get("title", "the recipe"))
    checker.expected = str(whole.get("x-expected", ""))
    checker.unknown = str(whole.get("x-unknown", ""))
    checker.is_deprecated = bool(whole.get("deprecated"))
    checker.instead = str(whole.get("x-instead", ""))
    return checker


class _Checkers(Mapping[str, "_Checker"]):
    """Schemas by name, each compiled when it is asked for: a recipe has few of all the fields that there are."""

    def __init__(self, parts: Mapping[str, Any], schema: Mapping[str, Any], known: dict[int, _Checker]) -> None:
        self._parts, self._schema, self._known = parts, schema, known

    def __getitem__(self, key: str) -> _Checker:
        return _compile(self._parts[key], self._schema, self._known)

    def __contains__(self, key: object) -> bool:
        return key in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


@record(eq=False, frozen=False)
class _Checker:
    """One compiled schema."""

    types: frozenset[str] = frozenset()
    may_interpolate: bool = False
    properties: Mapping[str, _Checker] = field(default_factory=dict)
    extra: _Checker | None = None
    is_closed: bool = False
    items: _Checker | None = None
    required: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    key_pattern: re.Pattern[str] | None = None
    keywords: dict[str, Any] = field(default_factory=dict)
    names: dict[str, object] = field(default_factory=dict)
    condition: Mapping[str, Any] | None = None
    branches: Mapping[str, _Checker] = field(default_factory=dict)
    title: str = ""
    expected: str = ""
    unknown: str = ""
    is_deprecated: bool = False
    instead: str = ""

    def check(self, node: Node, findings: Findings, where: tuple[str, ...]) -> Node:
        if type(node) is ScalarNode:
            return self._check_scalar(node, findings, where)
        if type(node) is MappingNode:
            return self._check_mapping(node, findings, where)
        return self._check_sequence(node, findings, where) if type(node) is SequenceNode else node

    # -- scalars -------------------------------------------------------------------------------------------------

    def _check_scalar(self, node: ScalarNode, findings: Findings, where: tuple[str, ...]) -> Node:
        value = node.value
        if not findings.is_final and type(value) is str and INTERPOLATION in value:
            if self.may_interpolate or "string" in self.types or not self.types.isdisjoint(_SCALAR_TYPES):
                return node
            self._refuse(node, findings, where)
            return node
        if not self._admits(value):
            typed = self._typed(node)
            if typed is None:
                self._refuse(node, findings, where)
                return node
            node, value = typed, typed.value
        if self.keywords or self.names or self.pattern is not None:
            self._check_value(node, value, findings, where)
        return node

    def _admits(self, value: Scalar) -> bool:
        kind = _KINDS[type(value)]
        return kind in self.types or (kind == "integer" and "number" in self.types)

    def _typed(self, node: ScalarNode) -> ScalarNode | None:
        """The scalar as the field's type, where its text or value allows that."""
        if type(node.value) is float and node.value.is_integer() and "integer" in self.types:
            return replace(node, value=int(node.value))
        if node.text is None:
            return None
        if type(node.value) is str:
            value = read_plain(node.text)
            return None if value is None or not self._admits(value) else replace(node, value=value)
        if node.value is None or "string" not in self.types:
            return None
        return replace(node, value=node.text)

    def _check_value(self, node: ScalarNode, value: Scalar, findings: Findings, where: tuple[str, ...]) -> None:
        limits = self.keywords
        is_number = type(value) in (int, float)
        wrong = (
            ("enum" in limits and not any(value == item and type(value) is type(item) for item in limits["enum"]))
            or (is_number and "minimum" in limits and value < limits["minimum"])
            or (type(value) is str and len(value) < limits.get("minLength", 0))
            or (type(value) is str and self.pattern is not None and self.pattern.search(value) is None)
        )
        if wrong:
            self._refuse(node, findings, where)
        elif self.names and type(value) is str and value and value.upper() not in self.names:
            self._refuse_name(node, value, findings)

    def _refuse_name(self, node: ScalarNode, value: str, findings: Findings) -> None:
        names = [str(name) for name in self.names.values()]
        near = similar_names(value.upper(), names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known types: {', '.join(names)}"
        kind = self.expected.removeprefix("the name of a ")
        message = f"unknown {kind} {printable(value)!r}{_made_with(node)}"
        findings.problems.add(RecipeError("UNKNOWN", message, node.position, hint=hint))

    # -- lists and mappings --------------------------------------------------------------------------------------

    def _check_sequence(self, node: SequenceNode, findings: Findings, where: tuple[str, ...]) -> Node:
        if "array" not in self.types or len(node.items) < self.keywords.get("minItems", 0):
            self._refuse(node, findings, where)
            return node
        if self.items is None:
            return node
        check = self.items.check
        items = tuple([check(item, findings, (*where, str(index))) for index, item in enumerate(node.items)])
        return node if all(map(_is_same, items, node.items)) else SequenceNode(items, node.position)

    def _check_mapping(self, node: MappingNode, findings: Findings, where: tuple[str, ...]) -> Node:
        if self.condition is not None:
            return self.branches["then" if _holds(self.condition, node) else "else"].check(node, findings, where)
        if "object" not in self.types or len(node.entries) < self.keywords.get("minProperties", 0):
            self._refuse(node, findings, where)
            return node
        entries: dict[str, Node] | None = None
        for key, value in node.entries.items():
            checker = self.properties.get(key)
            if checker is None:
                checker = self._checker_of_other(key, node, findings)
                if checker is None:
                    continue
            elif checker.is_deprecated:
                self._warn_deprecated(key, checker, node, findings)
            checked = checker.check(value, findings, (*where, key))
            if checked is not value:
                entries = dict(node.entries) if entries is None else entries
                entries[key] = checked
        self._check_required(node, findings)
        return node if entries is None else MappingNode(entries, node.keys, node.position)

    def _checker_of_other(self, key: str, node: MappingNode, findings: Findings) -> _Checker | None:
        """The checker of a key that is not a property; None when there is nothing (more) to check."""
        position = node.keys[key]
        if self.is_closed:
            deeper = [f"{name}.{key}" for name, checker in self.properties.items() if key in checker.properties]
            findings.problems.add(unknown_field(key, self.properties, position, self.title.lower(), deeper=deeper))
        elif self.key_pattern is not None and self.key_pattern.fullmatch(key) is None:
            message = f"{printable(key)!r} cannot be a name here"
            hint = "letters, digits and '_', not beginning with a digit"
            findings.problems.add(RecipeError("TYPE", message, position, hint=hint))
        elif self.unknown:
            near = similar_names(key, self.properties, n=2)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            what = "is stored as it is" if self.unknown == "parameter" else "is not stored"
            message = f"unknown {self.unknown} {printable(key)!r} {what}{meant}"
            findings.warnings.append(RecipeWarning("UNKNOWN", message, position))
        return self.extra

    def _warn_deprecated(self, key: str, checker: _Checker, node: MappingNode, findings: Findings) -> None:
        advice = f"write {checker.instead!r}" if checker.instead else "Ollama no longer reads it"
        findings.warnings.append(RecipeWarning("DEPRECATED", f"{key!r} is deprecated: {advice}", node.keys[key]))

    def _check_required(self, node: MappingNode, findings: Findings) -> None:
        for key in self.required:
            if key not in node.entries:
                message = f"{self.title.lower()} needs the field {key!r}"
                hint = f"{self.expected} is expected here" if self.expected else ""
                findings.problems.add(RecipeError("MISSING", message, node.position, hint=hint))

    def _refuse(self, node: Node, findings: Findings, where: tuple[str, ...]) -> None:
        place = printable(".".join(where)) or "the recipe"
        message = f"{place}: {self._expectation()} expected, {_found(node)} found{_made_with(node)}"
        hint = self._advice(node) or _ADVICE.get(where, "") if where else what_recipes_are(node)
        findings.problems.add(RecipeError("TYPE", message, node.position, hint=hint))

    def _expectation(self) -> str:
        if self.expected:
            return self.expected
        return " or ".join(name for kind, name in _TYPE_NAMES.items() if kind in self.types)

    def _advice(self, node: Node) -> str:
        """What to edit, where the mistake is a common one."""
        if not isinstance(node, ScalarNode) or type(node.value) is not str:
            return ""
        if node.text is None and not self._admits(node.value) and self._admits(read_plain(node.value)):
            return "remove the quotes"
        is_word = node.value.lower() in ("yes", "no", "on", "off", "y", "n")
        return "write true or false" if "boolean" in self.types and is_word else ""


def what_recipes_are(node: Node) -> str:
    """What to do where the document is no mapping."""
    if isinstance(node, ScalarNode) and begins_with_command(str(node.value).encode("utf-8", "replace")):
        return MODELFILE_HINT
    return "begin with 'model: NAME' and 'from: …'"


#: What to write where a mapping is often mistaken for something else.
_ADVICE: Mapping[tuple[str, ...], str] = {
    ("models",): "write the key of a model, a colon, and its fields indented below it"
}
_SCALAR_TYPES = frozenset(("string", "integer", "number", "boolean"))


def _is_same(one: Node, other: Node) -> bool:
    return one is other


def _holds(condition: Mapping[str, Any], node: MappingNode) -> bool:
    """Does one of the lists of required keys hold? Our schemas branch on nothing else."""
    return any(all(key in node.entries for key in option["required"]) for option in condition["anyOf"])


def _found(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping" if node.entries else "an empty mapping"
    if isinstance(node, SequenceNode):
        return "a list" if node.items else "an empty list"
    return printable(json.dumps(node.value, ensure_ascii=False))


def _made_with(node: Node) -> str:
    via = node.via if isinstance(node, ScalarNode) else ()
    return f" (made with {', '.join(via)})" if via else ""
