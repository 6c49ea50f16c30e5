"""Writes the reference part of docs/recipe.md from schemas/recipe.schema.json.

usage: python docs/generate_recipe_reference.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.generated_page import write_page

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "recipe.md"
SCHEMA = ROOT / "schemas" / "recipe.schema.json"
BEGIN = "<!-- Written by docs/generate_recipe_reference.py from the schema; edit the schema instead. -->"
END = "<!-- End of the generated part. -->"

#: Heading, an introduction, and the part of the schema whose properties the table shows.
TABLES = (
    (
        "Fields of a file",
        "`version`, `variables` and `include` also stand beside the fields of a single model.",
        "/$defs/recipe",
    ),
    (
        "Fields of a model",
        (
            "At the top of a file with one model, below a key of `models`, and (but for `model`, `name`, `extends` and "
            "`stream`) in `defaults`:"
        ),
        "/$defs/model",
    ),
    (
        "Parameters",
        (
            "Defaults are those of Ollama. Other parameters are stored with a warning. `null` drops a parameter that "
            "the base model has."
        ),
        "/$defs/parameters",
    ),
    ("A message", "", "/$defs/message"),
    ("Model information", "Others are not stored.", "/$defs/info"),
    ("A variable", "A plain value is short for its `default`.", "/$defs/variable"),
    ("A rule of `tensor_types`", "", "/$defs/tensor_type"),
    (
        "A value of `metadata`",
        "Text, a number, true or false, a list of them, `null` to remove the key, or:",
        "/$defs/metadata_value",
    ),
    ("Outputs", "", "/$defs/model/properties/outputs"),
)


def reference(schema: Mapping[str, Any]) -> str:
    """The reference as Markdown: one table per part of the language."""
    parts = [BEGIN, "", *_types(schema)]
    for heading, introduction, pointer in TABLES:
        properties = _at(schema, pointer)["properties"]
        parts += [f"### {heading}", ""]
        if introduction:
            parts += [introduction, ""]
        parts += [*_table({name: _follow(schema, part) for name, part in properties.items()}), ""]
    return "\n".join([*parts, END])


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    quantize = _at(schema, "/$defs/model/properties/quantize")["examples"]
    tensor = _at(schema, "/$defs/tensor_type/properties/type")["examples"]
    yield f"Quantization types, in upper or lower case: {', '.join(quantize)}."
    yield f"Tensor types for `tensor_types`: {', '.join(tensor)}."
    yield ""


def _table(properties: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    merges = any("x-merge" in part for part in properties.values())
    yield "| field | takes | meaning |" + (" inherited |" if merges else "")
    yield "|---|---|---|" + ("---|" if merges else "")
    for name, part in properties.items():
        merge = f" {part.get('x-merge', '')} |" if merges else ""
        yield f"| `{name}` | {_cell(part.get('x-expected', 'anything'))} | {_meaning(part)} |{merge}"


def _meaning(part: Mapping[str, Any]) -> str:
    text = _cell(str(part.get("description", "")))
    if part.get("deprecated"):
        text = f"*Deprecated.* {text}"
    if "default" in part:
        text += f" Default: `{json.dumps(part['default'])}`."
    examples = [] if part.get("x-names") else part.get("examples", [])
    if examples:
        text += " For example " + " or ".join(f"`{_flow(item)}`" for item in examples) + "."
    return text


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    return _cell(json.dumps(value) if any(char in value for char in "{}[]<|\\") else value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _follow(schema: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in part:
        own = {key: value for key, value in part.items() if key != "$ref"}
        part = {**_at(schema, part["$ref"].removeprefix("#")), **own}
    return part


def _at(schema: Mapping[str, Any], pointer: str) -> Mapping[str, Any]:
    return reduce(getitem, pointer.split("/")[1:], schema)


def page() -> str:
    """The page with its reference renewed."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + reference(json.loads(SCHEMA.read_text("utf-8"))) + after


def main() -> int:
    """Write the page, or with --check compare it; the exit status."""
    return write_page(PAGE, page())


if __name__ == "__main__":
    sys.exit(main())
