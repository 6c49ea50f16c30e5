"""Checks a document against a published JSON Schema and words each violation with its place.

The schema files stand in `schemas/` of the repository and inside the package when it is installed from a wheel.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from modelbuild.errors import Position, ProblemCollector, RecipeError, printable
from modelbuild.recipe.nodes import MappingNode, Node, node_at, to_plain

_TYPE_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


@cache
def load_schema(name: str) -> Mapping[str, Any]:
    """A schema by its file name, from the installed package or the source tree."""
    packaged = resources.files("modelbuild").joinpath("schemas", name)
    source = Path(__file__).parents[2] / "schemas" / name
    text = packaged.read_text("utf-8") if packaged.is_file() else source.read_text("utf-8")
    schema = json.loads(text)
    if not isinstance(schema, dict):
        raise TypeError(f"{name} is not a JSON object")
    return schema


def check_document(root: Node, schema_name: str, problems: ProblemCollector) -> None:
    """Collect one error for every violation of the schema."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(load_schema(schema_name))
    for violation in validator.iter_errors(to_plain(root)):
        for error in _errors_of(violation, root):
            problems.add(error)


def _errors_of(violation: Any, root: Node) -> Iterator[RecipeError]:
    node = node_at(root, list(violation.absolute_path))
    if violation.validator == "additionalProperties" and isinstance(node, MappingNode):
        yield from _unknown_fields(violation, node)
    elif violation.validator == "required":
        missing = next(key for key in violation.validator_value if key not in violation.instance)
        yield RecipeError("MISSING", f"{_described(violation)} needs the field {missing!r}", node.position)
    else:
        where = ".".join(str(step) for step in violation.absolute_path) or "the recipe"
        yield RecipeError("TYPE", f"{where}: {_expectation(violation)}", node.position)


def _unknown_fields(violation: Any, node: MappingNode) -> Iterator[RecipeError]:
    allowed = list(violation.schema.get("properties", {}))
    for key, position in node.keys.items():
        if key not in allowed:
            yield unknown_field(key, allowed, position, _described(violation))


def unknown_field(key: str, allowed: Iterable[str], position: Position, where: str) -> RecipeError:
    """The error for a field that does not exist, with the nearest ones that do."""
    names = list(allowed)
    near = difflib.get_close_matches(key.lower(), names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known fields: {', '.join(names)}"
    return RecipeError("UNKNOWN", f"unknown field {printable(key)!r} in {where}", position, hint=hint)


def _described(violation: Any) -> str:
    return str(violation.schema.get("title", "the recipe")).lower()


def _expectation(violation: Any) -> str:
    expected = violation.schema.get("x-expected") or _from_keyword(violation)
    return f"{expected} expected, {_found(violation.instance)} found"


def _from_keyword(violation: Any) -> str:
    value = violation.validator_value
    if violation.validator == "type":
        types = [value] if isinstance(value, str) else value
        return " or ".join(_TYPE_NAMES.get(name, name) for name in types)
    if violation.validator == "enum":
        return "one of " + ", ".join(map(str, value))
    if violation.validator == "const":
        return json.dumps(value)
    limits = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"}
    if violation.validator in limits:
        return f"{limits[violation.validator]} {value}"
    return {"minLength": "text that is not empty", "minItems": "a list that is not empty"}.get(
        violation.validator, f"a value that satisfies {violation.validator} {printable(json.dumps(value))}"
    )


def _found(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return printable(json.dumps(value, ensure_ascii=False))
