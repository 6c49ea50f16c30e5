"""Laws of the GGUF writer and reader: any sound content comes back; the same content gives the same bytes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.errors import InputError
from modelbuild.formats.files import open_input
from modelbuild.formats.gguf import cursor, writer
from modelbuild.formats.gguf.limits import STRING_LIMIT_BYTES, padded
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.types import GgmlType, ValueType, block_bytes, block_size
from modelbuild.formats.gguf.writer import KeyValue, lay_out
from tests.unit.formats.memory_file import memory_file

_RANGES = {
    ValueType.U8: (0, 2**8 - 1), ValueType.I8: (-(2**7), 2**7 - 1), ValueType.U16: (0, 2**16 - 1),
    ValueType.I16: (-(2**15), 2**15 - 1), ValueType.U32: (0, 2**32 - 1), ValueType.I32: (-(2**31), 2**31 - 1),
    ValueType.U64: (0, 2**64 - 1), ValueType.I64: (-(2**63), 2**63 - 1),
}  # fmt: skip
_KEYS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda key: key != "general.alignment"
)
_NAMES = _KEYS.filter(lambda name: len(name.encode()) <= 63)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
_FLOATS = st.floats(width=32, allow_nan=False)


@st.composite
def entries(draw: st.DrawFn) -> KeyValue:
    """One metadata entry of any type."""
    key = draw(_KEYS)
    kind = draw(st.sampled_from(["integer", "float", "boolean", "string", "strings", "integers", "floats"]))
    type_ = draw(st.sampled_from(sorted(_RANGES)))
    integers = st.integers(*_RANGES[type_])
    made = {
        "integer": lambda: writer.raw(key, writer.encode_scalar(type_, draw(integers))),
        "float": lambda: writer.f32(key, draw(_FLOATS)),
        "boolean": lambda: writer.boolean(key, draw(st.booleans())),
        "string": lambda: writer.string(key, draw(_TEXTS)),
        "strings": lambda: writer.strings(key, draw(st.lists(_TEXTS, max_size=5))),
        "integers": lambda: writer.array(key, type_, draw(st.lists(integers, max_size=5))),
        "floats": lambda: writer.f32_array(key, draw(st.lists(_FLOATS, max_size=5))),
    }
    return made[kind]()


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, tuple[int, ...], GgmlType]:
    """A tensor of any type with whole blocks."""
    type_ = draw(st.sampled_from(sorted(GgmlType)))
    columns = draw(st.integers(0, 3)) * block_size(type_)
    return draw(_NAMES), (columns, *draw(st.lists(st.integers(0, 3), max_size=3))), type_


_CONTENT = (
    st.lists(entries(), max_size=6, unique_by=lambda item: item.key),
    st.lists(tensors(), max_size=6, unique_by=lambda item: item[0]),
    st.sampled_from([1, 8, 32, 64]),
)


@settings(max_examples=150)
@given(*_CONTENT)
def test_content_comes_back(
    kv: list[KeyValue], infos: list[tuple[str, tuple[int, ...], GgmlType]], alignment: int
) -> None:
    """Keys, values, types, names, shapes and order survive writing and reading."""
    kv = [*kv, writer.u32("general.alignment", alignment)]
    layout = lay_out(kv, infos, alignment)
    with memory_file() as file:
        file.write(layout.header + bytes(layout.file_size - layout.data_offset))
        header = open_gguf(file.path)

    assert [(item.key, item.value) for item in kv] == list(header.kv.items())
    assert infos == [(item.name, item.shape, item.type) for item in header.tensors]
    assert [(slot.offset, slot.size_bytes) for slot in layout.slots] == [
        (item.offset, item.size_bytes) for item in header.tensors
    ]
    assert (layout.data_offset, alignment, 0) == (header.data_offset, header.alignment, header.trailing_bytes)


@settings(max_examples=100)
@given(*_CONTENT)
def test_same_content_same_bytes(
    kv: list[KeyValue], infos: list[tuple[str, tuple[int, ...], GgmlType]], alignment: int
) -> None:
    """Laying out is a function of its arguments; slots follow each other without gaps."""
    first, second = lay_out(kv, infos, alignment), lay_out(list(kv), list(infos), alignment)

    assert first == second
    position = 0
    for slot, (_, shape, type_) in zip(first.slots, infos, strict=True):
        elements = int(np.prod(shape, dtype=object))
        assert (position, elements // block_size(type_) * block_bytes(type_)) == (slot.offset, slot.size_bytes)
        position += padded(slot.size_bytes, alignment)
    assert first.data_offset + position == first.file_size


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic(data: bytes) -> None:
    """Whatever follows the magic and version ends in a header or an InputError."""
    with memory_file() as file, suppress(InputError):
        file.write(b"GGUF\3\0\0\0" + data)
        open_gguf(file.path)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 600), st.sampled_from([0, 1, 5, 40, 63, 64, 65, 255, 256, 70_000])), max_size=6),
    st.integers(0, 10),
    st.integers(0, 400) | st.none(),
    st.integers(0, 1),
)
def test_strings_are_passed_one_by_one_or_in_groups_alike(
    runs: list[tuple[int, int]], before: int, cut: int | None, huge: int
) -> None:
    """However many strings of whatever lengths, and wherever the file ends: the same position or the same error."""
    lengths = [length for count, length in runs for _ in range(min(count, 2) if length > 256 else count)]
    data = b"\1" * before + b"".join(length.to_bytes(8, "little") + b"\0" * length for length in lengths)
    data += (2**64 - 1).to_bytes(8, "little") * huge
    data = data[: len(data) - cut] if cut else data
    count = len(lengths) + huge
    with memory_file() as file:
        file.write(data)
        grouped, single = (_pass_strings(file.path, before, count, is_grouped=way) for way in (True, False))

    assert single == grouped == _expected(data, before, count)


def _pass_strings(path: Path, before: int, count: int, *, is_grouped: bool) -> tuple[int, str]:
    with open_input(path) as source, patch.object(cursor, "_GROUPS_PAY_OFF", 0 if is_grouped else 1 << 40):
        at = cursor.HeaderCursor(source)
        try:
            at.need(before)
            at.skip_strings(count)
        except InputError as error:
            return error.offset or 0, error.code
        return at.position, ""


def _expected(data: bytes, position: int, count: int) -> tuple[int, str]:
    """A walk without any haste."""
    if position > len(data):
        return 0, "TRUNCATED"
    for _ in range(count):
        start = position
        if len(data) - start < 8:
            return start, "TRUNCATED"
        length = int.from_bytes(data[start : start + 8], "little")
        if length > STRING_LIMIT_BYTES:
            return start, "STRING"
        if length > len(data) - start - 8:
            return start + 8, "TRUNCATED"
        position = start + 8 + length
    return position, ""
