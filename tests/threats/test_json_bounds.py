"""No JSON reader can be made to take a multiple of a document's size in memory, or seconds of CPU time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.engine.archive import import_models
from modelbuild.engine.lock_file import read_lock
from modelbuild.errors import InputError, ModelbuildError
from modelbuild.events import decode_event
from modelbuild.formats.json_text import MARK_LIMIT, has_more_marks, parse_json, read_json_object
from modelbuild.formats.safetensors import open_safetensors
from modelbuild.formats.safetensors_index import read_index
from modelbuild.recipe.go_scan import find_value
from modelbuild.recipe.request import parse_create_request
from modelbuild.recipe.text import parse_recipe_text
from modelbuild.store.config import decode_config
from modelbuild.store.manifest import decode_manifest
from modelbuild.store.store import Store
from tests.checkpoints import convert, write_checkpoint
from tests.limits import within_limits
from tests.unit.engine.test_archive import pack

SIZE = 15 << 20
#: What stands again and again in a document, each taking far more memory than text.
UNITS = {"lists": b"[],", "objects": b"{},", "numbers": b"[0],", "members": b'{"a":0},'}


def crowd(unit: bytes, size: int = SIZE) -> bytes:
    """An object whose `a` holds as many units as fit."""
    return b'{"a":[' + unit * (size // len(unit)) + b"0]}"


def _safetensors(data: bytes, root: Path) -> object:
    path = root / "m.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data)
    return open_safetensors(path)


def _file(read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def run(data: bytes, root: Path) -> object:
        (root / "document.json").write_bytes(data)
        return read(root / "document.json")

    return run


def _checkpoint(name: str) -> Callable[[bytes, Path], object]:
    return lambda data, root: convert(write_checkpoint(root / "m", **{name: data}))


READERS: dict[str, Callable[[bytes, Path], object]] = {
    "any": lambda data, root: parse_json(data, path=root),
    "object": _file(read_json_object),
    "config.json": _checkpoint("config__json"),
    "tokenizer.json": _checkpoint("tokenizer__json"),
    "tokenizer_config.json": _checkpoint("tokenizer_config__json"),
    "safetensors": _safetensors,
    "index": _file(read_index),
    "request": lambda data, root: parse_create_request(data),
    "manifest": lambda data, root: decode_manifest(data, root),
    "model config": lambda data, root: decode_config(data, root),
    "recipe": lambda data, root: parse_recipe_text(data, "recipe.json"),
    "archive": lambda data, root: import_models(Store(root / "s"), io.BytesIO(pack({"index.json": data[: 3 << 20]}))),
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("reader", READERS)
def test_crowds_of_values_are_refused(reader: str, unit: str, tmp_path: Path) -> None:
    """Fifteen megabytes of tiny values are refused before they become some hundred megabytes of objects."""
    data = crowd(UNITS[unit])

    with within_limits(), pytest.raises(ModelbuildError):
        READERS[reader](data, tmp_path)


WIDE = {
    "one wide character": '{"a":"😀'.encode() + b"x" * (31 << 20) + b'"}',
    "escapes": b'{"a":"' + b"\\n,[{:" * (5 << 20) + b'"}',
    "marks in a text": b'{"a":"' + b"[,:{" * (7 << 20) + b'"}',
    "lines": b"\n" * (31 << 20) + b"x",
    "nested lists": b'{"a":[' + b"[[[[[[[[0]]]]]]]]," * 110_000 + b'"' + b"x" * (28 << 20) + b'"]}',
    "not UTF-8": b'{"a":"' + b"\xff" * (31 << 20) + b'"}',
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("reader", ["safetensors", "index"])
def test_headers_of_the_largest_size_are_refused(reader: str, name: str, tmp_path: Path) -> None:
    """Whatever fills a header or an index up to its limit, a text that needs four bytes a character among it."""
    with within_limits(cpu_s=5), pytest.raises(InputError):
        READERS[reader](WIDE[name], tmp_path)


def test_a_vocabulary_of_nothing_but_lines(tmp_path: Path) -> None:
    """Lines are counted before there is an object for each."""
    directory = write_checkpoint(
        tmp_path / "m", tokenizer__json=None, vocab__json={"a": 0}, merges__txt="\n" * (90 << 20)
    )

    with within_limits(cpu_s=5), pytest.raises(InputError) as caught:
        convert(directory)

    assert ("LIMIT", "merges.txt") == (caught.value.code, Path(str(caught.value.path)).name)


def test_requests_of_bytes_that_are_no_text() -> None:
    """Each of them becomes a character, and none takes more than that."""
    body = b'{"model":"m","from":"b","system":"' + b"\xff" * (15 << 20) + b'"}'

    with within_limits(cpu_s=5):
        request = parse_create_request(body)

    assert "\ufffd" * (15 << 20) == request.system


def test_long_texts_are_no_crowd() -> None:
    """Commas, colons and brackets inside of strings count for nothing."""
    data = json.dumps({"license": ',:[{"' * MARK_LIMIT}).encode()

    with within_limits():
        assert parse_json(data, path="x") == json.loads(data)


@given(st.recursive(st.none() | st.text(max_size=8), lambda kids: st.lists(kids) | st.dictionaries(st.text(), kids)))
def test_marks_are_counted_outside_of_strings(value: object) -> None:
    """The count is the number of structural marks, however texts look."""
    data = json.dumps(value).encode()
    marks = _marks(value)

    assert not has_more_marks(data, marks)
    assert not marks or has_more_marks(data, marks - 1)


def _marks(value: object) -> int:
    if isinstance(value, dict):
        return 1 + len(value) + max(0, len(value) - 1) + sum(map(_marks, value.values()))
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(_marks, value))
    return 0


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda kids: st.lists(kids) | st.dictionaries(st.text(), kids),
    ),
    st.sampled_from([None, 0, 3]),
    st.integers(0, 40),
)
def test_the_scanner_of_requests_agrees_with_python(value: object, indent: int | None, cut: int) -> None:
    """A whole document is found to its last byte; a cut one is refused."""
    data = json.dumps([value], indent=indent).encode()

    assert slice(0, len(data)) == find_value(data + b"  ")
    with pytest.raises(InputError):
        find_value(data[: -1 - cut % len(data)])


def test_deep_lines_of_a_run_log_are_skipped() -> None:
    """A damaged line in the cache is no event, however deep it is nested."""
    assert decode_event('{"event":' + "[" * 200_000) is None


def test_a_huge_lock_is_refused(tmp_path: Path) -> None:
    """A lock is read whole or not at all: half of one would let drift pass."""
    with (tmp_path / "recipe.lock").open("wb") as file:
        file.truncate(17 << 20)

    with within_limits(), pytest.raises(InputError) as caught:
        read_lock(tmp_path / "recipe.lock")

    assert "LIMIT" == caught.value.code
