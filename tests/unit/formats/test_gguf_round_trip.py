"""GGUF files written here and read by the gguf package, and the other way round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from modelbuild.errors import InputError
from modelbuild.formats.gguf import values, writer
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.types import GgmlType, ValueType
from modelbuild.formats.gguf.writer import KeyValue, lay_out

ENTRIES = [
    writer.string("general.architecture", "llama"),
    writer.u8("a.u8", 255),
    writer.i8("a.i8", -128),
    writer.u16("a.u16", 65535),
    writer.i16("a.i16", -32768),
    writer.u32("a.u32", 2**32 - 1),
    writer.i32("a.i32", -(2**31)),
    writer.u64("a.u64", 2**64 - 1),
    writer.i64("a.i64", -(2**63)),
    writer.f32("a.f32", 0.5),
    writer.f64("a.f64", 0.1),
    writer.boolean("a.yes", True),
    writer.boolean("a.no", False),
    writer.string("a.empty", ""),
    writer.strings("a.strings", ["x", "", "déjà", "z" * 300]),
    writer.u32_array("a.u32s", [0, 2**32 - 1]),
    writer.i32_array("a.i32s", [-1, 1]),
    writer.u64_array("a.u64s", [2**64 - 1]),
    writer.i64_array("a.i64s", [-(2**63)]),
    writer.f32_array("a.f32s", [0.25, -2.0]),
    writer.bool_array("a.bools", [True, False]),
]
TENSORS = [("first", (32, 3), GgmlType.Q8_0), ("second", (5,), GgmlType.F32), ("third", (256, 2, 2), GgmlType.Q4_K)]


def write(path: Path, kv: list[KeyValue], tensors: list[tuple[str, tuple[int, ...], GgmlType]], **options: int) -> Path:
    """A complete file whose tensor data are counted-up bytes, with zeros between tensors."""
    layout = lay_out(kv, tensors, **options)
    data = bytearray(layout.file_size - layout.data_offset)
    for slot in layout.slots:
        data[slot.offset : slot.offset + slot.size_bytes] = bytes(index % 60 for index in range(slot.size_bytes))
    path.write_bytes(layout.header + data)
    return path


def test_independent_reader_sees_every_value(tmp_path: Path) -> None:
    """The gguf package reads each value and tensor that we wrote."""
    path = write(tmp_path / "m.gguf", ENTRIES, TENSORS)

    reader = gguf.GGUFReader(path)

    read = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert {item.key: item.value.decode() for item in ENTRIES} == read
    expected = [(name, list(shape), type_.name) for name, shape, type_ in TENSORS]
    assert expected == [(item.name, item.shape.tolist(), item.tensor_type.name) for item in reader.tensors]
    assert all(bytes(item.data.reshape(-1).view(np.uint8)[:5]) == bytes(range(5)) for item in reader.tensors)


def test_own_reader_gives_back_what_was_written(tmp_path: Path) -> None:
    """Reading a file and laying it out again gives the same header."""
    path = write(tmp_path / "m.gguf", ENTRIES, TENSORS)

    header = open_gguf(path)

    again = lay_out(
        [writer.raw(key, value) for key, value in header.kv.items()],
        [(item.name, item.shape, item.type) for item in header.tensors],
    )
    assert path.read_bytes()[: header.data_offset] == again.header
    assert again.file_size == header.size_bytes
    assert header.trailing_bytes == 0


def _add_all(target: Any) -> None:
    target.add_uint8("a.u8", 1)
    target.add_int8("a.i8", -1)
    target.add_uint16("a.u16", 2)
    target.add_int16("a.i16", -2)
    target.add_uint32("a.u32", 3)
    target.add_int32("a.i32", -3)
    target.add_uint64("a.u64", 4)
    target.add_int64("a.i64", -4)
    target.add_float32("a.f32", 0.5)
    target.add_float64("a.f64", 0.1)
    target.add_bool("a.bool", True)
    target.add_string("a.string", "text")
    target.add_array("a.strings", ["x", "yy"])
    target.add_array("a.numbers", [1, -2, 3])
    target.add_array("a.floats", [1.5, 2.5])


def test_own_reader_reads_the_independent_writer(tmp_path: Path) -> None:
    """Values, shapes, types and data of a file by the gguf package arrive unchanged."""
    path = tmp_path / "m.gguf"
    target = gguf.GGUFWriter(path, "llama")
    _add_all(target)
    weights = np.arange(96, dtype=np.float32).reshape(3, 32)
    target.add_tensor("w", weights)
    target.add_tensor("h", weights[0].astype(np.float16))
    target.write_header_to_file()
    target.write_kv_data_to_file()
    target.write_tensors_to_file()
    target.close()

    header = open_gguf(path)

    expected = {
        "general.architecture": "llama", "a.u8": 1, "a.i8": -1, "a.u16": 2, "a.i16": -2, "a.u32": 3, "a.i32": -3,
        "a.u64": 4, "a.i64": -4, "a.f32": 0.5, "a.f64": 0.1, "a.bool": True, "a.string": "text",
        "a.strings": ["x", "yy"], "a.numbers": [1, -2, 3], "a.floats": [1.5, 2.5],
    }  # fmt: skip
    assert expected == {key: value.decode() for key, value in header.kv.items()}
    assert [("w", (32, 3), GgmlType.F32), ("h", (32,), GgmlType.F16)] == [
        (item.name, item.shape, item.type) for item in header.tensors
    ]
    start = header.data_offset + header.tensors[0].offset
    assert weights.tobytes() == path.read_bytes()[start : start + header.tensors[0].size_bytes]


def test_layout_pads_every_tensor(tmp_path: Path) -> None:
    """Offsets are the running sum of padded sizes, and the file ends with the last tensor's padding."""
    layout = lay_out([writer.u32("general.alignment", 64)], TENSORS, 64)

    assert [0, 128, 192] == [slot.offset for slot in layout.slots]
    assert [102, 20, 576] == [slot.size_bytes for slot in layout.slots]
    assert layout.data_offset % 64 == 0 == layout.data_offset - len(layout.header)
    assert layout.data_offset + 192 + 576 == layout.file_size


REFUSED = {
    "key-twice": ("DUPLICATE", "a", [writer.u8("a", 1), writer.u8("a", 2)], []),
    "key-empty": ("KEY", None, [writer.u8("", 1)], []),
    "key-long": ("KEY", None, [writer.u8("k" * 65_536, 1)], []),
    "key-surrogate": ("KEY", "\udc80", [writer.u8("\udc80", 1)], []),
    "tensor-twice": ("DUPLICATE", "t", [], [("t", (1,), GgmlType.F32)] * 2),
    "partial-block": ("SHAPE", "t", [], [("t", (48,), GgmlType.Q4_0)]),
    "five-dimensions": ("DIMS", "t", [], [("t", (1,) * 5, GgmlType.F32)]),
    "negative": ("SHAPE", "t", [], [("t", (-1,), GgmlType.F32)]),
    "huge": ("SHAPE", "t", [], [("t", (2**32, 2**32), GgmlType.F32)]),
    "long-name": ("NAME", "t" * 63, [], [("t" * 64, (1,), GgmlType.F32)]),
    "alignment-value": ("ALIGNMENT", "general.alignment", [writer.u32("general.alignment", 64)], []),
    "alignment-type": ("ALIGNMENT", "general.alignment", [writer.i32("general.alignment", 32)], []),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_layout_refuses(case: str) -> None:
    """What no reader would accept is not laid out; the error names the key or tensor."""
    code, key, kv, tensors = REFUSED[case]

    with pytest.raises(InputError) as caught:
        lay_out(kv, tensors)

    assert (code, key) == (caught.value.code, caught.value.key)


@pytest.mark.parametrize(
    ("type_", "value"), [("u8", 256), ("u8", -1), ("i32", 2**31), ("u32", -1), ("u64", 2**64), ("f32", 1e39)]
)
def test_value_that_does_not_fit_is_refused(type_: str, value: float) -> None:
    """A number outside its type is an error that names the key, never a wrapped value."""
    with pytest.raises(InputError) as caught:
        getattr(writer, type_)("a.key", value)

    assert ("META", "a.key") == (caught.value.code, caught.value.key)


def test_layout_refuses_what_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits that the reader holds, the writer holds too."""
    for limit, value, code in [
        ("KEY_COUNT_LIMIT", 1, "COUNT"),
        ("TENSOR_COUNT_LIMIT", 1, "COUNT"),
        ("HEADER_LIMIT_BYTES", 99, "HEADER"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(writer, limit, value)
            with pytest.raises(InputError) as caught:
                lay_out([writer.u8("a", 1), writer.u8("b", 2)], TENSORS)
            assert code == caught.value.code, limit


@pytest.mark.parametrize("numbers", [[1, 2**31], [-(2**31) - 1], [1.5]])
def test_array_element_that_does_not_fit_is_refused(numbers: list[int]) -> None:
    """An element outside its type is an error that names the key."""
    with pytest.raises(InputError) as caught:
        writer.i32_array("a.key", numbers)

    assert ("META", "a.key") == (caught.value.code, caught.value.key)


@pytest.mark.parametrize("make", [lambda text: writer.string("k", text), lambda text: writer.strings("k", ["a", text])])
@pytest.mark.parametrize("text", ["\ud800", "x" * ((16 << 20) + 1)])
def test_text_that_cannot_be_written_is_refused(make: Callable[[str], KeyValue], text: str) -> None:
    """Lone surrogates and texts beyond the limit are errors that name the key."""
    with pytest.raises(InputError) as caught:
        make(text)

    assert ("STRING", "k") == (caught.value.code, caught.value.key)


def test_array_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that no reader would take are not made."""
    monkeypatch.setattr(values, "ARRAY_LIMIT", 2)

    for make in (lambda: writer.i32_array("k", [1] * 3), lambda: writer.strings("k", ["a"] * 3)):
        with pytest.raises(InputError) as caught:
            make()
        assert ("ARRAY", "k") == (caught.value.code, caught.value.key)


def test_strings_of_a_file_keep_their_bytes(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 survive reading, decoding and writing."""
    path = write(tmp_path / "m.gguf", [writer.string("s", b"\xff\xfe"), writer.strings("t", [b"\x80", "é"])], [])

    header = open_gguf(path)

    assert header.kv.string("s").encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert [b"\x80", "é".encode()] == header.kv["t"].strings()
    assert ValueType.STRING is header.kv["t"].element_type
