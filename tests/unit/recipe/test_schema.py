"""The published schemas: complete, well-formed, and worded as our checker words errors."""

from __future__ import annotations

from collections.abc import Iterator

import jsonschema
import pytest

from modelbuild.errors import ProblemCollector, Problems
from modelbuild.recipe.nodes import to_plain
from modelbuild.recipe.schema import check_node, load_schema, schema_names
from modelbuild.recipe.schema_checker import Findings
from modelbuild.recipe.text import parse_recipe_text
from tests.recipes import Recipes


def _parts(schema: object, path: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    if isinstance(schema, dict):
        for key, part in schema.get("properties", {}).items():
            yield f"{path}/{key}", part
        for key, part in schema.items():
            yield from _parts(part, f"{path}/{key}")


@pytest.mark.parametrize("name", schema_names())
def test_schemas_are_valid_2020_12(name: str) -> None:
    """Every published schema is a JSON Schema 2020-12 that refers to nothing outside of itself."""
    schema = load_schema(name)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    assert '"$ref": "http' not in str(schema).replace("'", '"')


@pytest.mark.parametrize("name", ["recipe.schema.json", "create-request.schema.json"])
def test_every_field_is_described(name: str) -> None:
    """Each property has a title, a description and words for errors, its own or those of what it refers to."""
    schema = load_schema(name)
    lacking = []
    for path, part in _parts(schema):
        whole = dict(part)
        while reference := whole.pop("$ref", None):
            target: object = schema
            for step in str(reference).split("/")[1:]:
                target = target[step]  # type: ignore[index]
            whole = {**target, **whole}  # type: ignore[dict-item]
        if (
            "title" not in whole
            or "description" not in whole
            or not (whole.get("x-expected") or whole.get("deprecated"))
        ):
            lacking.append(path)

    assert [] == [path for path in lacking if "/parameters/" not in path or "mirostat" not in path]


def test_every_model_field_says_how_it_merges() -> None:
    """The rule of inheritance stands in the schema for each field of a model."""
    fields = load_schema("recipe.schema.json")["$defs"]["model"]["properties"]

    assert [] == [name for name, part in fields.items() if "x-merge" not in part]


def test_shared_parts_agree() -> None:
    """Parameters, messages and info mean the same in both schemas."""
    recipe, request = load_schema("recipe.schema.json")["$defs"], load_schema("create-request.schema.json")["$defs"]

    for part in ("parameters", "message", "info"):
        assert list(recipe[part]["properties"]) == list(request[part]["properties"])
        for name, item in request[part]["properties"].items():
            assert set(item.get("type", [])) <= set(recipe[part]["properties"][name].get("type", ["string", "null"]))


def test_known_parameters_are_those_of_the_command_line() -> None:
    """Every parameter that Ollama's command line types has that type in the schema."""
    from modelbuild.recipe.modelfile_values import BOOLEANS, DEPRECATED, FLOATS, INTEGERS, LISTS

    properties = load_schema("create-request.schema.json")["$defs"]["parameters"]["properties"]

    assert set(properties) == {*INTEGERS, *FLOATS, *BOOLEANS, *LISTS, *DEPRECATED}
    kinds = [(INTEGERS, "integer"), (FLOATS, "number"), (BOOLEANS, "boolean"), (LISTS, "array")]
    assert all(kind in properties[name]["type"] for names, kind in kinds for name in names)


def test_types_are_those_that_can_be_made() -> None:
    """The names of quantization and tensor types in the schema are those that the packing code knows."""
    from modelbuild.quantize.presets import PRESETS, find_preset
    from modelbuild.quantize.tensor_rules import make_tensor_rule

    defs = load_schema("recipe.schema.json")["$defs"]
    names = defs["model"]["properties"]["quantize"]["examples"]

    assert {*PRESETS, "Q3_K", "Q4_K", "Q5_K"} == set(names)
    assert all(find_preset(name) is not None for name in names)
    for name in defs["tensor_type"]["properties"]["type"]["examples"]:
        make_tensor_rule("x", name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("system: 017", "017"),
        ("system: 1.10", "1.10"),
        ("system: true", "true"),
        ("system: 2026-01-01", "2026-01-01"),
        ("requires: 0.14", "0.14"),
        ("parameters: {num_ctx: 017}", {"num_ctx": 17}),
        ("parameters: {num_ctx: 8192.0}", {"num_ctx": 8192}),
        ("parameters: {stop: [1, no]}", {"stop": ["1", "no"]}),
        ("parameters: {unknown: 017}", {"unknown": 17}),
    ],
)
def test_scalars_are_typed_by_their_fields(text: str, value: object) -> None:
    """A plain scalar is text where text is wanted, as it is written, and a number where a number is."""
    findings = Findings(ProblemCollector(), [])
    node = check_node(parse_recipe_text(text.encode(), "r"), "recipe.schema.json", "/$defs/model", findings)
    plain = to_plain(node)

    assert [] == findings.problems.errors
    assert isinstance(plain, dict)
    (found,) = plain.values()
    assert (repr(value), type(value)) == (repr(found), type(found))


def test_warnings_name_what_is_hardly_meant(recipes: Recipes) -> None:
    """Unknown parameters, old spellings, odd versions and unused variables are allowed, but said."""
    text = """\
variables: {unused: 1, used: x}
name: m
from: ${used}
quantization: Q8_0
requires: newest
parameters: {temprature: 1, mirostat: 2}
info: {colour: red}
messages: [{role: User, content: hi}, {role: asistant, content: ho}]
"""

    assert [
        "2:1 'name' is deprecated: write 'model'",
        "4:1 'quantization' is deprecated: write 'quantize'",
        "6:14 unknown parameter 'temprature' is stored as it is; did you mean temperature?",
        "6:29 'mirostat' is deprecated: Ollama no longer reads it",
        "7:8 unknown info field 'colour' is not stored",
        "1:13 the variable 'unused' is never used",
        "8:46 unknown role 'asistant' is stored as it is; did you mean assistant?",
        "5:11 'newest' is no version such as 0.14.0; it is stored as it is",
    ] == recipes.warnings(text)


def test_long_inputs_to_patterns_take_no_time(recipes: Recipes) -> None:
    """A hundred thousand characters where a name, a pattern or an expression is expected are settled at once."""
    import time

    long = "a" * 100_000
    start_s = time.process_time()
    recipes.errors(f"variables: {{{long}: {{env: '{long} '}}}}\nmodel: {long}\nfrom: {long}\nrequires: '{long}'\n")
    recipes.errors("variables: {a: b}\nmodel: m\nfrom: x\nsystem: ${a | replace('" + long + "\n")
    recipes.errors("model: m\nfrom: x\nremote_host: 'http://" + "[" * 100_000 + "'\n")

    assert time.process_time() - start_s < 0.5


def test_a_field_at_the_wrong_level_is_told_where_it_belongs(recipes: Recipes) -> None:
    """What people know from Modelfiles as a line of its own belongs below a field here."""
    with pytest.raises(Problems) as caught:
        recipes.load("model: m\nfrom: base\ntemperature: 1\ncontext_length: 2\n")

    hints = [error.hint for error in caught.value.errors]
    assert ["write it as 'parameters.temperature'", "write it as 'info.context_length'"] == hints
