"""Lays out a GGUF file: the whole header and the place of every tensor, before a weight is read."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from modelbuild.errors import InputError
from modelbuild.formats.gguf.limits import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    check_alignment,
    check_key,
    check_name,
    padded,
    tensor_bytes,
)
from modelbuild.formats.gguf.types import GgmlType, ValueType
from modelbuild.formats.gguf.values import (
    RawValue,
    encode_numbers,
    encode_scalar,
    encode_string,
    encode_strings,
)

VERSION = 3


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One metadata entry."""

    key: str
    value: RawValue


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """Where a tensor's data stand: offset from data_offset, size without padding."""

    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufLayout:
    """A file to be. header: every byte before data_offset; file_size includes the padding after the last tensor."""

    header: bytes
    slots: tuple[TensorSlot, ...]
    data_offset: int
    file_size: int


def raw(key: str, value: RawValue) -> KeyValue:
    """An entry whose value is taken over as it is."""
    return KeyValue(key, value)


def u8(key: str, value: int) -> KeyValue:
    """An unsigned 8-bit number."""
    return KeyValue(key, encode_scalar(ValueType.U8, value))


def u16(key: str, value: int) -> KeyValue:
    """An unsigned 16-bit number."""
    return KeyValue(key, encode_scalar(ValueType.U16, value))


def u32(key: str, value: int) -> KeyValue:
    """An unsigned 32-bit number."""
    return KeyValue(key, encode_scalar(ValueType.U32, value))


def i32(key: str, value: int) -> KeyValue:
    """A signed 32-bit number."""
    return KeyValue(key, encode_scalar(ValueType.I32, value))


def u64(key: str, value: int) -> KeyValue:
    """An unsigned 64-bit number."""
    return KeyValue(key, encode_scalar(ValueType.U64, value))


def f32(key: str, value: float) -> KeyValue:
    """A 32-bit float."""
    return KeyValue(key, encode_scalar(ValueType.F32, value))


def boolean(key: str, value: bool) -> KeyValue:
    """A boolean."""
    return KeyValue(key, encode_scalar(ValueType.BOOL, value))


def string(key: str, value: str | bytes) -> KeyValue:
    """A text."""
    return KeyValue(key, encode_string(value))


def strings(key: str, values: Sequence[str | bytes]) -> KeyValue:
    """An array of texts."""
    return KeyValue(key, encode_strings(values))


def i32_array(key: str, values: Sequence[int]) -> KeyValue:
    """An array of signed 32-bit numbers."""
    return KeyValue(key, encode_numbers(ValueType.I32, values))


def u32_array(key: str, values: Sequence[int]) -> KeyValue:
    """An array of unsigned 32-bit numbers."""
    return KeyValue(key, encode_numbers(ValueType.U32, values))


def f32_array(key: str, values: Sequence[float]) -> KeyValue:
    """An array of 32-bit floats."""
    return KeyValue(key, encode_numbers(ValueType.F32, values))


def bool_array(key: str, values: Sequence[bool]) -> KeyValue:
    """An array of booleans."""
    return KeyValue(key, encode_numbers(ValueType.BOOL, values))


def lay_out(
    kv: Sequence[KeyValue],
    tensors: Sequence[tuple[str, Sequence[int], GgmlType]],
    alignment: int = DEFAULT_ALIGNMENT,
) -> GgufLayout:
    """The layout of a file with these entries and tensors, in this order.

    tensors: name, shape in GGUF order, type. Raises InputError for duplicates and shapes that cannot be.
    """
    check_alignment(alignment)
    _refuse_duplicates([item.key for item in kv], "key")
    _refuse_duplicates([name for name, _, _ in tensors], "tensor")
    slots: list[TensorSlot] = []
    infos: list[bytes] = []
    offset = 0
    for name, shape, type_ in tensors:
        size = tensor_bytes(name, shape, type_, alignment)
        infos.append(_tensor_info(name, shape, type_, offset))
        slots.append(TensorSlot(offset, size))
        offset += padded(size, alignment)
    start = struct.pack("<4sIQQ", MAGIC, VERSION, len(tensors), len(kv))
    header = b"".join([start, *(part for item in kv for part in _entry(item)), *infos])
    data_offset = padded(len(header), alignment)
    return GgufLayout(header.ljust(data_offset, b"\0"), tuple(slots), data_offset, data_offset + offset)


def _entry(item: KeyValue) -> tuple[bytes, bytes, bytes, bytes]:
    key = item.key.encode("utf-8", "surrogateescape")
    check_key(key)
    return struct.pack("<Q", len(key)), key, struct.pack("<I", item.value.type), item.value.data


def _tensor_info(name: str, shape: Sequence[int], type_: GgmlType, offset: int) -> bytes:
    data = name.encode("utf-8", "surrogateescape")
    check_name(data)
    head = struct.pack("<Q", len(data)) + data + struct.pack("<I", len(shape))
    return head + struct.pack(f"<{len(shape)}QIQ", *shape, type_, offset)


def _refuse_duplicates(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError("DUPLICATE", f"a second {what} of this name", key=name)
        seen.add(name)
