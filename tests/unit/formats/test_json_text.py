"""JSON of strangers is read in linear time and refused where Python's own parser is lenient."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelbuild.errors import InputError
from modelbuild.formats.json_text import parse_json, read_json_object
from tests.unit.formats.crafted import at_little_cost


def code_of(data: bytes, max_depth: int = 64) -> str:
    """The code with which a document is refused, or an empty string."""
    try:
        parse_json(data, path="x.json", max_depth=max_depth)
    except InputError as error:
        return error.code
    return ""


DOCUMENTS = {
    "depth-64": (b"[" * 64 + b"]" * 64, ""),
    "depth-65": (b"[" * 65 + b"]" * 65, "JSON"),
    "objects-65": (b'{"a":' * 65 + b"1" + b"}" * 65, "JSON"),
    "wide": (b"[" + b"[]," * 100 + b"[]]", ""),
    "wide-and-deep": (b"[" + b"[[[]]]," * 100 + b"[" * 63 + b"]" * 64, ""),
    "wide-and-too-deep": (b"[" + b"[[[]]]," * 100 + b"[" * 64 + b"]" * 65, "JSON"),
    "brackets-in-strings": (json.dumps(["[" * 100, '\\"[[' * 100, "]" * 100]).encode(), ""),
    "escaped-quotes": (json.dumps(['"' * 50 + "\\" * 50, "{" * 200]).encode(), ""),
    "never-closed": (b"[" * 50_000, "JSON"),
    "never-closed-string": (b'["' + b"[" * 100, "JSON"),
    "ends-in-backslash": (b"[" * 65 + b'"\\', "JSON"),
    "only-closers": (b"]" * 1000 + b"[" * 65, "JSON"),
    "duplicate": (b'{"a":1,"a":2}', "DUPLICATE"),
    "nan": (b"[NaN]", "JSON"),
    "infinity": (b"[-Infinity]", "JSON"),
    "digits": (b"[" + b"1" * 41 + b"]", "JSON"),
    "not-utf8": (b'["\xff"]', "JSON"),
    "empty": (b" \n", "JSON"),
    "half a pair": (b'["\\ud800x"]', "JSON"),
    "half a pair as a key": (b'{"a":[{"\\uDFFF":1}]}', "JSON"),
    "a whole pair": (b'["\\ud83d\\ude00"]', ""),
    "no escape": (b'["\\\\ud800"]', ""),
    "trailing": (b"{} {}", "JSON"),
    "backslash outside": (b'[\\"' + b"[" * 100_000, "JSON"),
    "backslash hides no depth": (b"[" * 65 + b'\\"' + b"]" * 65, "JSON"),
    "long text before the depth": (b'["' + b"x" * 5000 + b'\\""' + b",[" * 64, "JSON"),
    "byte-order-mark": (b"\xef\xbb\xbf{}", "JSON"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_document(case: str) -> None:
    """Each document gets the code of the rule it breaks."""
    data, code = DOCUMENTS[case]

    assert code == code_of(data)


HOSTILE = {
    "unterminated string of escapes": b"[" * 70 + b'"' + b'\\"' * 500_000,
    "long string": b'{"a":"' + b"x" * (2 << 20) + b'","b":' + b"[" * 65,
    "quotes": b"[" * 70 + b'"' * 1_000_001,
    "pairs": b"[" * 70 + b"[]," * 300_000,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_text_is_refused_in_linear_time(case: str) -> None:
    """Megabytes made to provoke backtracking cost neither seconds nor a multiple of their memory."""
    data = HOSTILE[case]

    assert "JSON" == at_little_cost(lambda: code_of(data), memory_bytes=40 << 20)


def test_error_names_line_and_offset() -> None:
    """A syntax error says where it stands, in bytes and in lines."""
    with pytest.raises(InputError, match="line 2, column 5") as caught:
        parse_json('{"é": 1,\n"b" 2}'.encode(), path="x.json")

    assert 14 == caught.value.offset


def test_empty_document_is_called_empty() -> None:
    """A file of blanks is said to be empty, not to have an error in line 1."""
    with pytest.raises(InputError, match="empty"):
        parse_json(b" \n", path="x.json")


@pytest.mark.parametrize(("text", "code"), [("[1]", "CONFIG"), ('"a"', "CONFIG"), ('{"a": 12345}', "LIMIT")])
def test_files_that_hold_no_object_or_too_much(tmp_path: Path, text: str, code: str) -> None:
    """Configuration is an object, and no longer than its limit."""
    path = tmp_path / "config.json"
    path.write_text(text)

    with pytest.raises(InputError) as caught:
        read_json_object(path, limit_bytes=10)

    assert (code, path) == (caught.value.code, caught.value.path)
