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
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from modelbuild.recipe.nodes import Node
from modelbuild.recipe.schema_checker import TYPE_NAMES, Checker, Findings

_INTERPOLATION_PATTERN = r"\$\{"
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


@cache
def _compiled(schema_name: str, pointer: str) -> Checker:
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


def _compile(part: Mapping[str, Any], schema: Mapping[str, Any], known: dict[int, Checker]) -> Checker:
    if id(part) in known:
        return known[id(part)]
    checker = known[id(part)] = Checker()
    whole = _follow(schema, part)
    unknown = set(whole) - _KEYWORDS
    if unknown:
        raise ValueError(f"keywords that the checker does not know: {', '.join(sorted(unknown))}")
    checker.condition = whole.get("if")
    checker.branches = _Checkers({key: whole[key] for key in ("then", "else") if key in whole}, schema, known)
    types = whole.get("type", list(TYPE_NAMES))
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


class _Checkers(Mapping[str, "Checker"]):
    """Schemas by name, each compiled when it is asked for: a recipe has few of all the fields that there are."""

    def __init__(self, parts: Mapping[str, Any], schema: Mapping[str, Any], known: dict[int, Checker]) -> None:
        self._parts, self._schema, self._known = parts, schema, known

    def __getitem__(self, key: str) -> Checker:
        return _compile(self._parts[key], self._schema, self._known)

    def __contains__(self, key: object) -> bool:
        return key in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)
