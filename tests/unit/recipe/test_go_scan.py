"""The scanner of request bodies: where a value ends, and Go's words for what is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.errors import InputError
from modelbuild.recipe.go_scan import DEPTH_LIMIT, find_value

FAULTS = [
    (b'{"model":', "unexpected EOF"),
    (b'["a', "unexpected EOF"),
    (b'["a\\', "unexpected EOF"),
    (b'["\\u12', "unexpected EOF"),
    (b"[tr", "unexpected EOF"),
    (b"[-", "unexpected EOF"),
    (b"[1.", "unexpected EOF"),
    (b"[1e", "unexpected EOF"),
    (b"{model:1}", "invalid character 'm' looking for beginning of object key string"),
    (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
    (b'{"a":"b""c"}', "invalid character '\"' after object key:value pair"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b"[1,]", "invalid character ']' looking for beginning of value"),
    (b"[1 2]", "invalid character '2' after array element"),
    (b"[01]", "invalid character '1' after array element"),
    (b"[1.x]", "invalid character 'x' after decimal point in numeric literal"),
    (b"[-x]", "invalid character 'x' in numeric literal"),
    (b"[1e+x]", "invalid character 'x' in exponent of numeric literal"),
    (b"[trux]", "invalid character 'x' in literal true (expecting 'e')"),
    (b"[nil]", "invalid character 'i' in literal null (expecting 'u')"),
    (b'["\x01"]', "invalid character '\\x01' in string literal"),
    (b'["\n"]', "invalid character '\\n' in string literal"),
    (b'["\\q"]', "invalid character 'q' in string escape code"),
    (b'["\\u12g"]', "invalid character 'g' in \\u hexadecimal character escape"),
    (b"\xef\xbb\xbf{}", "invalid character '\u00ef' looking for beginning of value"),
    (b"<html>", "invalid character '<' looking for beginning of value"),
    (b"[NaN]", "invalid character 'N' looking for beginning of value"),
    (b"[" * 100, "exceeded max depth"),
]


@pytest.mark.parametrize(("body", "text"), FAULTS)
def test_faults_are_worded_as_go_words_them(body: bytes, text: str) -> None:
    """The text names the character and what was expected there."""
    with pytest.raises(InputError) as caught:
        find_value(body)

    assert ("JSON", text) == (caught.value.code, caught.value.message)


@pytest.mark.parametrize("body", [b"", b"  \r\n\t"])
def test_nothing_but_blanks_is_a_missing_body(body: bytes) -> None:
    """An empty body has its own text."""
    with pytest.raises(InputError) as caught:
        find_value(body)

    assert ("EMPTY", "missing request body") == (caught.value.code, caught.value.message)


@pytest.mark.parametrize("rest", [b"", b" garbage", b"{", b"\xff"])
def test_what_follows_the_first_value_is_ignored(rest: bytes) -> None:
    """Go's decoder reads one value."""
    assert slice(1, 10) == find_value(b' {"a":[1]}' + rest)


def test_nesting_up_to_the_limit_is_accepted() -> None:
    """The limit itself is fine."""
    assert slice(0, 2 * DEPTH_LIMIT) == find_value(b"[" * DEPTH_LIMIT + b"]" * DEPTH_LIMIT)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    ),
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_every_json_text_is_found_whole(value: object, ascii_only: bool, indent: int | None) -> None:
    """Whatever an independent writer writes is one value from its first to its last byte."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")

    assert slice(0, len(text)) == find_value(text)


@given(st.binary(max_size=40))
def test_any_bytes_give_a_value_or_an_input_error(body: bytes) -> None:
    """No other exception, whatever comes; what is accepted an independent parser accepts too."""
    try:
        span = find_value(body)
    except InputError:
        return
    json.loads(body[span].decode("utf-8", "replace"))
