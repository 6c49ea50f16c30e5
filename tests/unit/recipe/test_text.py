"""The front end: YAML and JSON text to nodes with positions, within budgets."""

from __future__ import annotations

import json
import resource
import time

import pytest

from modelbuild.errors import RecipeError
from modelbuild.recipe.nodes import MappingNode, ScalarNode, SequenceNode, to_plain
from modelbuild.recipe.text import ALIAS_LIMIT, DEPTH_LIMIT, TEXT_LIMIT_BYTES, parse_recipe_text


def _plain(text: str | bytes) -> object:
    return to_plain(parse_recipe_text(text.encode() if isinstance(text, str) else text, "r"))


def _error(text: str | bytes) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe_text(text.encode() if isinstance(text, str) else text, "r")
    place = caught.value.position
    return f"{place.line}:{place.column} {caught.value.code} {caught.value.message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("+5", 5),
        ("-0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e999999", "1e999999"),
        ("1e99999", "1e99999"),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("-", [None]),
        ("=", "="),
        ("0b11", "0b11"),
        ("0x", "0x"),
        ("-.5e-3", -0.0005),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    """Unquoted scalars are read by the YAML 1.2 core schema, quoted ones are text."""
    found = _plain(f"a: {text}" if text != "-" else "a:\n- ")
    assert isinstance(found, dict)
    assert (type(value), value) == (type(found["a"]), found["a"])


def test_nodes_know_their_places() -> None:
    """Every key and value has its line and column, counted from 1, in characters."""
    root = parse_recipe_text("é: ü\nlist:\n  - a\n  - {b: 1}\n".encode(), "file")
    assert isinstance(root, MappingNode)
    items = root.entries["list"]
    assert isinstance(items, SequenceNode)
    inner = items.items[1]
    assert isinstance(inner, MappingNode)

    assert ["file:1:1", "file:2:1"] == [str(place) for place in root.keys.values()]
    assert "file:1:4" == str(root.entries["é"].position)
    assert ["file:3:5", "file:4:5"] == [str(item.position) for item in items.items]
    assert ("file:4:6", "file:4:9") == (str(inner.keys["b"]), str(inner.entries["b"].position))


@pytest.mark.parametrize(
    ("text", "index", "place"),
    [
        ("a: plain text", 6, "1:10"),
        ("a: 'quoted'", 2, "1:7"),
        ('a: "with \\n escape"', 6, "1:12"),
        ('a: "\\x41\\u00e9\\U0001F600\\" x"', 5, "1:28"),
        ('{"a": "\\ud83d\\ude00\\/x"}', 2, "1:22"),
        ("a: 'it''s'", 4, "1:4"),
        ('a: "on two\n  lines"', 8, "1:4"),
        ("a: |\n  first\n    second\n", 8, "3:5"),
        ("a: >\n  folded\n  text\n", 3, "1:4"),
        ("a: &x anchored", 3, "1:4"),
    ],
)
def test_places_inside_scalars_are_exact_where_they_can_be(text: str, index: int, place: str) -> None:
    """A character of a value is found in the text, unless folding hides it; then the value's start counts."""
    root = parse_recipe_text(text.encode(), "r")
    assert isinstance(root, MappingNode)
    scalar = root.entries["a"]
    assert isinstance(scalar, ScalarNode)

    assert f"r:{place}" == str(scalar.position_of(index))


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
    ],
    ids=["utf-8", "utf-8 with mark"],
)
def test_a_mark_in_front_is_no_text(encode: object) -> None:
    """UTF-8 with and without a byte order mark gives the same document."""
    assert {"a": "ü😀"} == _plain(encode("a: ü😀\n"))  # type: ignore[operator]


def test_merge_keys_work_as_in_compose() -> None:
    """`<<` adds what a mapping does not have itself, from one mapping or from several, the first one first."""
    text = "x: &x {a: 1, b: 2}\ny: &y {a: 3, c: 4}\none: {<<: *x, b: 5}\ntwo: {<<: [*y, *x]}\n"

    found = _plain(text)

    assert isinstance(found, dict)
    assert {"a": 1, "b": 5} == found["one"]
    assert {"a": 3, "c": 4, "b": 2} == found["two"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1 YAML the file is empty"),
        ("# only a comment\n", "1:1 YAML the file is empty"),
        ("a: 1\n---\nb: 2\n", "2:1 YAML a second document; one per file is allowed"),
        ("a: 1\na: 2\n", "2:1 YAML the key 'a' stands here and at line 1, column 1"),
        ('{"a": 1, "a": 2}', "1:10 YAML the key 'a' stands here and at line 1, column 2"),
        ("1: a\n", "1:1 YAML a key must be text"),
        ("? [a]\n: b\n", "1:3 YAML a key must be text"),
        ("null: a\n", "1:1 YAML a key must be text"),
        ("a: !!str b\n", "1:4 YAML the tag 'tag:yaml.org,2002:str' is not allowed"),
        ('a: !!python/object/apply:os.system ["true"]\n', "1:4 YAML the tag 'tag:yaml.org,2002:python/object/apply"),
        ("a: !local b\n", "1:4 YAML the tag '!local' is not allowed"),
        ("a: &x {b: *x}\n", "1:11 YAML the alias *x refers to a value that contains it"),
        ("a: *nobody\n", "1:4 YAML the alias *nobody has no anchor before it"),
        ("a: .nan\n", "1:4 YAML .nan is not a usable number"),
        ("a: -.inf\n", "1:4 YAML -.inf is not a usable number"),
        ("a: {<<: 5}\n", "1:9 YAML '<<' takes a mapping or a list of mappings"),
        ("a: [\n", "2:1 YAML not valid YAML: "),
        ("a: b: c\n", "1:5 YAML not valid YAML: mapping values are not allowed"),
        ("a:\n\t- b\n", "2:1 YAML not valid YAML: found character that cannot start any token"),
        ("a: \x00\n", "1:4 YAML not valid YAML: control characters are not allowed"),
        (b"a: \xff\n", "1:4 YAML not UTF-8 text: byte 0xff at offset 3"),
        (b"\xff\xfea", "1:1 YAML a text in UTF-16"),
        ("a: b\n".encode("utf-16"), "1:1 YAML a text in UTF-16"),
        (b"\xfe\xff" + "a: b\n".encode("utf-16-be"), "1:1 YAML a text in UTF-16"),
        ('{"a": "\\ud800"}', "1:7 YAML half of a surrogate pair is no character"),
        ('{"a": 1e999}', "1:7 YAML 1e999 is larger than any number that can be stored"),
        ('{"a": ' + "1" * 10_000 + "}", "1:7 LIMIT a number of 10000 digits, at most 400 allowed"),
        ('{"a": NaN, "b": [}', "1:18 YAML not valid YAML: "),
    ],
)
def test_bad_text_is_refused_with_its_place(text: str | bytes, expected: str) -> None:
    """Whatever a recipe may not contain is an error with line, column and code."""
    assert _error(text).startswith(expected)


def test_json_is_read_where_yaml_would_stumble() -> None:
    """Surrogate pairs, raw DEL characters, long keys and escaped slashes are JSON, and so a recipe."""
    value = {"k" * 2000: "😀", "del": "\x7f", "nested": [1, -0.5, True, None, {"a": {}}], "é": "a/b"}

    assert value == _plain(json.dumps(value).replace("/", "\\/"))
    assert value == _plain(json.dumps(value, ensure_ascii=False, indent=1))


def test_json_numbers_in_text_fields_stay_numbers() -> None:
    """JSON says itself what is text; a plain YAML scalar keeps its source for fields that want text."""
    (yaml_scalar,) = parse_recipe_text(b"a: 017", "r").entries.values()  # type: ignore[union-attr]
    (json_scalar,) = parse_recipe_text(b'{"a": 17}', "r").entries.values()  # type: ignore[union-attr]

    assert isinstance(yaml_scalar, ScalarNode)
    assert isinstance(json_scalar, ScalarNode)
    assert ("017", None) == (yaml_scalar.text, json_scalar.text)


def _bomb() -> str:
    lines = ['a0: &a0 ["x","x","x","x","x","x","x","x","x"]']
    for level in range(1, 9):
        lines.append(f"a{level}: &a{level} [" + ",".join([f"*a{level - 1}"] * 9) + "]")
    return "\n".join(lines)


HOSTILE = {
    "deep flow lists": "[" * 50_000,
    "deep flow lists in a value": "a: " + "[" * 10_000 + "]" * 10_000,
    "deep block lists": "- " * 10_000 + "x",
    "deep mappings": "{a: " * 10_000,
    "deep JSON": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "billion laughs": _bomb(),
    "merged laughs": "a: &a {x: 1}\n" + "".join(f"b{i}: {{<<: *a}}\n" for i in range(ALIAS_LIMIT + 1)),
    "one value too many": "[" + "a," * 100_001 + "]",
    "too large": "#" * (TEXT_LIMIT_BYTES + 1),
    "binary": bytes(range(256)) * 100,
    "zeros": b"\0" * 500_000,
    "one endless line": "a: " + "x" * 900_000 + ": y",
    "many anchors": "".join(f"k{i}: &a{i} v\n" for i in range(60_000)),
    "many quotes": "a: '" + "''" * 400_000,
    "colons": "a:" * 300_000,
    "dashes": "-" * 500_000 + " a: b",
    "question marks": "? " * 300_000,
    "open JSON strings": '{"a": "' + '\\"' * 400_000,
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_text_is_settled_quickly(name: str) -> None:
    """Nesting, bombs, garbage and giants end in under a second of CPU time and 200 MiB."""
    text = HOSTILE[name]
    data = text.encode() if isinstance(text, str) else text
    before_kib, start_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()

    code = ""
    try:
        parse_recipe_text(data, "r")
    except RecipeError as error:
        code = error.code

    assert code in ("", "LIMIT", "YAML")
    assert time.process_time() - start_s < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 200 << 10


def test_depth_limit_is_exact() -> None:
    """The deepest allowed nesting is read, one more level is refused."""
    assert _plain("[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT)
    assert f"1:{DEPTH_LIMIT + 1} LIMIT nested deeper than {DEPTH_LIMIT} levels" == _error(
        "[" * (DEPTH_LIMIT + 1) + "x, "
    )
