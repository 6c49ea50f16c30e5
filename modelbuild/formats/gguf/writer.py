"""Lays out a GGUF file (version 3): the complete header as bytes, and where each tensor's data goes.

The same arguments give the same bytes, in any process. What this module lays out, `reader.open_gguf` accepts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeVar

from modelbuild.errors import InputError
from modelbuild.formats.gguf.limits import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    HEADER_LIMIT_BYTES,
    KEY_COUNT_LIMIT,
    MAGIC,
    TENSOR_COUNT_LIMIT,
    check_alignment,
    check_key,
    check_name,
    padded,
    tensor_bytes,
)
from modelbuild.formats.gguf.types import GgmlType, ValueType
from modelbuild.formats.gguf.values import RawValue, encode_numbers, encode_scalar, encode_string, encode_strings
from modelbuild.records import record

T = TypeVar("T")

VERSION = 3
_START = struct.Struct("<4sIQQ")


@record
class KeyValue:
    """One metadata entry; `value.decode()` is its meaning in Python."""

    key: str
    value: RawValue


@record
class TensorSlot:
    """Where a tensor's data goes: offset from the layout's data_offset, and its size without padding."""

    offset: int
    size_bytes: int


@record
class GgufLayout:
    """A GGUF file decided to the byte, except for its weights.

    header: all bytes before the data, zero-padded to data_offset. slots: in the order of the tensors given; the gap
    between one and the next (and after the last, up to file_size) is to be filled with zeros.
    """

    header: bytes
    data_offset: int
    slots: tuple[TensorSlot, ...]
    file_size: int


def lay_out(
    kv: Sequence[KeyValue],
    tensors: Sequence[tuple[str, Sequence[int], GgmlType]],
    alignment: int = DEFAULT_ALIGNMENT,
    *,
    pads_end: bool = True,
) -> GgufLayout:
    """The layout of a file with these keys and tensors, in this order.

    tensors: name, shape in GGUF order (fastest-varying dimension first), type. Every tensor is padded to the alignment,
    with `pads_end` the last one too. Raises InputError with the key or tensor: DUPLICATE, KEY, NAME, DIMS, SHAPE,
    COUNT, HEADER, and ALIGNMENT when the keys state another alignment.
    """
    _check_counts(len(kv), len(tensors))
    _check_alignment_key(kv, check_alignment(alignment))
    parts = [_START.pack(MAGIC, VERSION, len(tensors), len(kv))]
    _add_keys(parts, kv)
    slots, data_bytes = _add_tensors(parts, tensors, alignment)
    size_bytes = sum(map(len, parts))
    if size_bytes > HEADER_LIMIT_BYTES:
        message = f"the header would take {size_bytes:,} bytes, at most {HEADER_LIMIT_BYTES:,} allowed"
        raise InputError("HEADER", message)
    data_offset = padded(size_bytes, alignment)
    parts.append(bytes(data_offset - size_bytes))
    if slots and not pads_end:
        data_bytes = slots[-1].offset + slots[-1].size_bytes
    return GgufLayout(b"".join(parts), data_offset, slots, data_offset + data_bytes)


def _check_counts(key_count: int, tensor_count: int) -> None:
    if key_count > KEY_COUNT_LIMIT:
        raise InputError("COUNT", f"{key_count:,} metadata keys, at most {KEY_COUNT_LIMIT:,} allowed")
    if tensor_count > TENSOR_COUNT_LIMIT:
        raise InputError("COUNT", f"{tensor_count:,} tensors, at most {TENSOR_COUNT_LIMIT:,} allowed")


def _check_alignment_key(kv: Sequence[KeyValue], alignment: int) -> None:
    """A file whose key states another alignment than its layout uses cannot be read."""
    stated = encode_scalar(ValueType.U32, alignment)
    for item in kv:
        if item.key == ALIGNMENT_KEY and item.value != stated:
            message = f"the key states {item.value.decode()!r} as {item.value.type.name}, the layout uses {alignment}"
            raise InputError("ALIGNMENT", message, key=ALIGNMENT_KEY)


def _add_keys(parts: list[bytes], kv: Sequence[KeyValue]) -> None:
    seen: set[str] = set()
    for item in kv:
        if item.key in seen:
            raise InputError("DUPLICATE", "the key is given twice", key=item.key)
        seen.add(item.key)
        key = _utf8(item.key, "KEY")
        check_key(key)
        parts += (struct.pack("<Q", len(key)), key, struct.pack("<I", item.value.type), item.value.data)


def _add_tensors(
    parts: list[bytes], tensors: Sequence[tuple[str, Sequence[int], GgmlType]], alignment: int
) -> tuple[tuple[TensorSlot, ...], int]:
    """The slots of all tensors and the bytes they take together, with padding."""
    seen: set[str] = set()
    slots: list[TensorSlot] = []
    offset = 0
    for name, shape, type_ in tensors:
        if name in seen:
            raise InputError("DUPLICATE", "two tensors have this name", key=name)
        seen.add(name)
        encoded = _utf8(name, "NAME")
        check_name(encoded)
        size_bytes = tensor_bytes(name, shape, type_, alignment)
        head = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_, offset)
        parts += (struct.pack("<Q", len(encoded)), encoded, head)
        slots.append(TensorSlot(offset, size_bytes))
        offset += padded(size_bytes, alignment)
    return tuple(slots), offset


def _utf8(text: str, code: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(code, f"a name with a lone surrogate at character {error.start}", key=text) from error


# -- entries -----------------------------------------------------------------------------------------------------------


def raw(key: str, value: RawValue) -> KeyValue:
    """An entry with a value as another file has it, byte for byte."""
    return KeyValue(key, value)


def string(key: str, text: str | bytes) -> KeyValue:
    """An entry with a string; text is written as UTF-8, bytes as they are."""
    return _entry(key, encode_string, text)


def strings(key: str, texts: Sequence[str | bytes]) -> KeyValue:
    """An entry with an array of strings."""
    return _entry(key, encode_strings, texts)


def boolean(key: str, value: bool) -> KeyValue:
    """An entry with a boolean."""
    return _scalar(key, ValueType.BOOL, value)


def u8(key: str, value: int) -> KeyValue:
    """An entry with an unsigned 8-bit integer."""
    return _scalar(key, ValueType.U8, value)


def i8(key: str, value: int) -> KeyValue:
    """An entry with a signed 8-bit integer."""
    return _scalar(key, ValueType.I8, value)


def u16(key: str, value: int) -> KeyValue:
    """An entry with an unsigned 16-bit integer."""
    return _scalar(key, ValueType.U16, value)


def i16(key: str, value: int) -> KeyValue:
    """An entry with a signed 16-bit integer."""
    return _scalar(key, ValueType.I16, value)


def u32(key: str, value: int) -> KeyValue:
    """An entry with an unsigned 32-bit integer."""
    return _scalar(key, ValueType.U32, value)


def i32(key: str, value: int) -> KeyValue:
    """An entry with a signed 32-bit integer."""
    return _scalar(key, ValueType.I32, value)


def u64(key: str, value: int) -> KeyValue:
    """An entry with an unsigned 64-bit integer."""
    return _scalar(key, ValueType.U64, value)


def i64(key: str, value: int) -> KeyValue:
    """An entry with a signed 64-bit integer."""
    return _scalar(key, ValueType.I64, value)


def f32(key: str, value: float) -> KeyValue:
    """An entry with a 32-bit float, rounded to nearest."""
    return _scalar(key, ValueType.F32, value)


def f64(key: str, value: float) -> KeyValue:
    """An entry with a 64-bit float."""
    return _scalar(key, ValueType.F64, value)


def bool_array(key: str, values: Sequence[bool]) -> KeyValue:
    """An entry with an array of booleans."""
    return array(key, ValueType.BOOL, values)


def u32_array(key: str, values: Sequence[int]) -> KeyValue:
    """An entry with an array of unsigned 32-bit integers."""
    return array(key, ValueType.U32, values)


def i32_array(key: str, values: Sequence[int]) -> KeyValue:
    """An entry with an array of signed 32-bit integers."""
    return array(key, ValueType.I32, values)


def u64_array(key: str, values: Sequence[int]) -> KeyValue:
    """An entry with an array of unsigned 64-bit integers."""
    return array(key, ValueType.U64, values)


def i64_array(key: str, values: Sequence[int]) -> KeyValue:
    """An entry with an array of signed 64-bit integers."""
    return array(key, ValueType.I64, values)


def f32_array(key: str, values: Sequence[float]) -> KeyValue:
    """An entry with an array of 32-bit floats."""
    return array(key, ValueType.F32, values)


def array(key: str, element_type: ValueType, values: Sequence[bool] | Sequence[int] | Sequence[float]) -> KeyValue:
    """An entry with an array of numbers or booleans of any element type."""
    return _entry(key, lambda items: encode_numbers(element_type, items), values)


def _scalar(key: str, type_: ValueType, value: bool | float) -> KeyValue:
    return _entry(key, lambda number: encode_scalar(type_, number), value)


def _entry(key: str, encode: Callable[[T], RawValue], value: T) -> KeyValue:
    try:
        return KeyValue(key, encode(value))
    except InputError as error:
        error.key = key
        raise
