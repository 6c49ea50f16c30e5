"""JSON in Go's bytes: escapes, numbers, key order. Expectations were measured on Ollama, August 2026."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.formats.json_text import parse_json
from modelbuild.store.go_json import encode_go_json, format_go_float

NUMBERS = [
    (1.0, "1"), (0, "0"), (-0.0, "-0"), (12345678901234567890, "12345678901234567000"), (1e-7, "1e-7"),
    (1e-6, "0.000001"),
       (9.99e-7, "9.99e-7"), (1e21, "1e+21"), (999999999999999900000.0, "999999999999999900000"), (5e-324, "5e-324"),
    (1.7976931348623157e308, "1.7976931348623157e+308"), (0.30000000000000004, "0.30000000000000004"),
    (123456789.125, "123456789.125"), (1e100, "1e+100"), (-1.5e-10, "-1.5e-10"), (2048, "2048"), (0.1, "0.1"),
    (1 << 53, "9007199254740992"), ((1 << 53) + 1, "9007199254740992"), (0.000001234, "0.000001234"),
    (1e20, "100000000000000000000"),
]  # fmt: skip

STRINGS = [
    ('\b\f\n\r\t"\\', '"\\b\\f\\n\\r\\t\\"\\\\"'),
    ("\x00\x01\x1f", '"\\u0000\\u0001\\u001f"'),
    ("<|im|>&", '"\\u003c|im|\\u003e\\u0026"'),
    ("\u2028\u2029", '"\\u2028\\u2029"'),
    ("\x7f/é😀\u0085", '"\x7f/é😀\u0085"'),
    ("\ud800x", '"\ufffdx"'),
]  # fmt: skip

PARAMS = [
    (
        {"stop": ["USER:", "ASSISTANT:"], "temperature": 1, "top_k": 10},
        "1d0ad71299d48c2fb7ae2b98e683643e771f8a5b72be34942af90d97a91c1e37",
    ),
    (
        {"top_p": 0.7, "temperature": 0.6, "stop": ["USER:", "ASSISTANT:"], "top_k": 10.0},
        "e29a7b3c47287a2489c895d21fe413c20f859a85d20e749492f52a838e36e1ba",
    ),
    (
        {"stop": ["<|endoftext|>"], "temperature": 0.6, "top_k": 10, "top_p": 0.7},
        "12f58bb75cb3042d69a7e013ab87fb3c3c7088f50ddc62f0c77bd332f0d44d35",
    ),
    (
        {"stop": ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]},
        "0d79f567714c62c048378f2107fb332dabee0135d080c302d884317da9433cc5",
    ),
]


@pytest.mark.parametrize(("number", "text"), NUMBERS)
def test_numbers_are_written_as_go_writes_doubles(number: float, text: str) -> None:
    """Shortest digits, plain between 1e-6 and 1e21, exponents without leading zero; integers pass through a double."""
    assert text == encode_go_json(number).decode()


@pytest.mark.parametrize(("value", "text"), STRINGS)
def test_strings_are_escaped_as_go_does(value: str, text: str) -> None:
    """HTML characters and line separators are escaped, DEL and everything else stays raw."""
    assert text == encode_go_json(value).decode()


@pytest.mark.parametrize(("params", "sha256"), PARAMS)
def test_params_blobs_have_the_digests_ollama_gives(params: dict[str, object], sha256: str) -> None:
    """Recorded digests of params layers, whatever the order of the keys."""
    data = encode_go_json(params, sort_keys=True) + b"\n"

    assert sha256 == hashlib.sha256(data).hexdigest()


def test_messages_blob_has_the_digest_ollama_gives() -> None:
    """The recorded digest of a messages layer: keys keep their order."""
    turns = (("assistant", "What is my purpose?"), ("user", "You run tests."), ("assistant", "Oh, my god."))
    data = encode_go_json([{"role": role, "content": content} for role, content in turns]) + b"\n"

    assert "298baeaf6928a60cf666d88d64a1ba606feb43a2865687c39e40652e407bffc4" == hashlib.sha256(data).hexdigest()


def test_free_form_objects_are_sorted_at_every_level() -> None:
    """Keys go by code point, nested objects too; null is kept; lists keep their order."""
    value = {"é": 1, "b": {"z": 1, "a": [1, None]}, "Z": 2, "": 0, "😀": 3, "\uffee": 4}

    assert (
        '{"":0,"Z":2,"b":{"a":[1,null],"z":1},"é":1,"\uffee":4,"😀":3}'
        == encode_go_json(value, sort_keys=True).decode()
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, b"x", {1}])
def test_values_without_a_json_form_are_refused(value: object) -> None:
    """Nothing is written that JSON cannot hold."""
    with pytest.raises(ValueError, match="no JSON form"):
        encode_go_json(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_reads_back_equal(number: float) -> None:
    """The text is the shortest and exact one."""
    text = format_go_float(number)

    assert math.copysign(1, number) == math.copysign(1, float(text))
    assert number == float(text)
    assert "e-0" not in text
    assert "e+0" not in text


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_value_is_valid_json_that_reads_back(value: object) -> None:
    """An independent parser gets the value back."""
    assert value == json.loads(encode_go_json(value, sort_keys=True))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_written_can_be_read_again(number: float) -> None:
    """Every double comes back from a stored blob as it was, sign of zero included."""
    read = parse_json(encode_go_json({"n": number}), path="params")

    assert isinstance(read, dict)
    assert encode_go_json(number) == encode_go_json(read["n"])
