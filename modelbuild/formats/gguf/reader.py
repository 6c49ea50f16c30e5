"""Reads the header of a GGUF file: bounded in time and memory, checked in full, values left as bytes.

Token arrays of modern vocabularies hold half a million strings. They are walked, so that every length is proven and
the next key is found, but no Python object is made for a string that nobody asks for.
"""

from __future__ import annotations

import struct
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.formats.files import open_input
from modelbuild.formats.gguf.cursor import HeaderCursor, check_string_length
from modelbuild.formats.gguf.limits import (
    ALIGNMENT_KEY,
    ARRAY_LIMIT,
    DEFAULT_ALIGNMENT,
    DIMENSION_LIMIT,
    KEY_COUNT_LIMIT,
    KEY_LIMIT_BYTES,
    MAGIC,
    TENSOR_COUNT_LIMIT,
    TENSOR_NAME_LIMIT_BYTES,
    check_alignment,
    check_key,
    check_name,
    padded,
    tensor_bytes,
)
from modelbuild.formats.gguf.metadata import Metadata, ValueSpan
from modelbuild.formats.gguf.types import VALUE_BYTES, GgmlType, ValueType
from modelbuild.formats.signatures import SIGNATURE_BYTES, describe_format
from modelbuild.records import record

_VERSIONS = (2, 3)
#: Of every length and dimension in the file.
_LENGTH_BYTES = 8
#: The smallest possible entries: a key of one byte with a value of one byte; a scalar tensor with a name of one byte.
_SMALLEST_KEY_BYTES = 14
_SMALLEST_TENSOR_BYTES = 25

_TENSOR_TAIL = struct.Struct("<IQ")


@record
class TensorInfo:
    """One tensor of a GGUF file.

    shape: GGUF order, fastest-varying dimension first. offset: from the file's data_offset.
    size_bytes: without the padding that follows.
    """

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    size_bytes: int


@record
class GgufHeader:
    """What a GGUF file says before its tensor data; every tensor lies inside the file.

    data_offset: where tensor data starts in the file. size_bytes: of the whole file.
    """

    path: Path
    version: int
    kv: Metadata
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    alignment: int
    size_bytes: int

    @property
    def trailing_bytes(self) -> int:
        """Bytes after the last tensor and its padding; they belong to nothing."""
        if not self.tensors:
            return max(0, self.size_bytes - self.data_offset)
        last = self.tensors[-1]
        return max(0, self.size_bytes - self.data_offset - padded(last.offset + last.size_bytes, self.alignment))


def open_gguf(path: Path) -> GgufHeader:
    """The header of a GGUF file (version 2 or 3, little endian).

    Reads nothing but the header, at most 256 MiB. Raises InputError with the offset, tensor or key for anything that is
    not as the format demands; the file is closed again in any case.
    """
    with open_input(path) as source:
        try:
            return _read_header(HeaderCursor(source))
        except InputError as error:
            if error.path is None:
                error.path = path
            raise


def _read_header(cursor: HeaderCursor) -> GgufHeader:
    version, tensor_count, key_count = _read_start(cursor)
    spans = _read_keys(cursor, key_count)
    kv = Metadata(cursor.loaded, spans, cursor.source.path)
    alignment = _read_alignment(kv)
    tensors = _read_tensors(cursor, tensor_count, alignment)
    data_offset = padded(cursor.position, alignment)
    _check_extents(tensors, data_offset, cursor.source.size_bytes)
    del cursor.loaded[cursor.position :]
    return GgufHeader(cursor.source.path, version, kv, tensors, data_offset, alignment, cursor.source.size_bytes)


def _read_start(cursor: HeaderCursor) -> tuple[int, int, int]:
    """Version, number of tensors and number of keys."""
    magic = cursor.take(len(MAGIC))
    if magic != MAGIC:
        raise _wrong_magic(cursor, magic)
    version = cursor.u32()
    if version and not version & 0xFFFF:
        raise InputError("ENDIAN", "a big-endian GGUF file, only little-endian ones are read", offset=4)
    if version not in _VERSIONS:
        raise InputError("VERSION", f"GGUF version {version}, 2 or 3 is expected", offset=4)
    tensor_count, key_count = cursor.u64(), cursor.u64()
    _check_count(key_count, min(KEY_COUNT_LIMIT, cursor.remaining // _SMALLEST_KEY_BYTES), "metadata keys", 16)
    _check_count(tensor_count, min(TENSOR_COUNT_LIMIT, cursor.remaining // _SMALLEST_TENSOR_BYTES), "tensors", 8)
    return version, tensor_count, key_count


def _wrong_magic(cursor: HeaderCursor, magic: bytes) -> InputError:
    start = cursor.source.read_at(0, min(SIGNATURE_BYTES, cursor.source.size_bytes))
    what, hint = describe_format(start)
    found = what or f"a file that starts with {printable(magic.decode('latin-1'))!r}"
    return InputError("MAGIC", f"a GGUF file is expected, found {found}", offset=0, hint=hint)


def _check_count(count: int, limit: int, what: str, offset: int) -> None:
    if count > limit:
        message = f"the file claims {count:,} {what}, a file of this size has room for {limit:,}"
        raise InputError("COUNT", message, offset=offset)


def _read_keys(cursor: HeaderCursor, count: int) -> dict[str, ValueSpan]:
    spans: dict[str, ValueSpan] = {}
    for _ in range(count):
        start = cursor.position
        key = _read_key(cursor)
        if key in spans:
            raise InputError("DUPLICATE", "the key stands twice in the metadata", offset=start, key=key)
        try:
            spans[key] = _read_value(cursor)
        except InputError as error:
            error.key = key
            raise
    return spans


def _read_key(cursor: HeaderCursor) -> str:
    start = cursor.position
    length = cursor.u64()
    if length > cursor.remaining:
        message = f"a key of {length:,} bytes, {cursor.remaining:,} left in the file"
        raise InputError("STRING", message, offset=start)
    if length > KEY_LIMIT_BYTES:
        raise InputError("KEY", f"a key of {length:,} bytes, 1 to {KEY_LIMIT_BYTES:,} allowed", offset=start)
    return check_key(cursor.take(length), offset=start)


def _read_value(cursor: HeaderCursor) -> ValueSpan:
    type_ = _value_type(cursor)
    start = cursor.position
    if type_ is ValueType.ARRAY:
        element_type, length = _skip_array(cursor)
        return ValueSpan(type_, start, cursor.position, element_type, length)
    if type_ is ValueType.STRING:
        length = cursor.u64()
        check_string_length(length, start)
        cursor.need(length)
    else:
        cursor.need(VALUE_BYTES[type_])
    return ValueSpan(type_, start, cursor.position)


def _value_type(cursor: HeaderCursor) -> ValueType:
    start = cursor.position
    id_ = cursor.u32()
    try:
        return ValueType(id_)
    except ValueError:
        raise InputError("TYPE", f"unknown value type {id_}", offset=start) from None


def _skip_array(cursor: HeaderCursor) -> tuple[ValueType, int]:
    start = cursor.position
    element_type = _value_type(cursor)
    if element_type is ValueType.ARRAY:
        raise InputError("NESTED", "an array of arrays, which no GGUF key uses", offset=start)
    length = cursor.u64()
    if length > ARRAY_LIMIT:
        raise InputError("ARRAY", f"an array of {length:,} elements, at most {ARRAY_LIMIT:,} allowed", offset=start)
    smallest_bytes = length * VALUE_BYTES.get(element_type, _LENGTH_BYTES)
    if smallest_bytes > cursor.remaining:
        message = f"an array of at least {smallest_bytes:,} bytes, {cursor.remaining:,} left in the file"
        raise InputError("TRUNCATED", message, offset=start)
    if element_type is ValueType.STRING:
        cursor.skip_strings(length)
    else:
        cursor.need(smallest_bytes)
    return element_type, length


def _read_alignment(kv: Metadata) -> int:
    if ALIGNMENT_KEY not in kv:
        return DEFAULT_ALIGNMENT
    alignment = kv.get_u32(ALIGNMENT_KEY)
    if alignment is None:
        message = f"the alignment must be U32, not {kv.type_of(ALIGNMENT_KEY)}"
        raise InputError("ALIGNMENT", message, key=ALIGNMENT_KEY)
    return check_alignment(alignment)


def _read_tensors(cursor: HeaderCursor, count: int, alignment: int) -> tuple[TensorInfo, ...]:
    tensors: list[TensorInfo] = []
    names: set[str] = set()
    expected_offset = 0
    for _ in range(count):
        start = cursor.position
        tensor = _read_tensor(cursor, names, alignment)
        if tensor.offset != expected_offset:
            message = f"the data offset is {tensor.offset}, but the tensors before it end at {expected_offset}"
            raise InputError("OFFSET", message, offset=start, key=tensor.name)
        expected_offset += padded(tensor.size_bytes, alignment)
        names.add(tensor.name)
        tensors.append(tensor)
    return tuple(tensors)


def _read_tensor(cursor: HeaderCursor, names: set[str], alignment: int) -> TensorInfo:
    start = cursor.position
    name = _read_name(cursor)
    if name in names:
        raise InputError("DUPLICATE", "two tensors have this name", offset=start, key=name)
    count = cursor.u32()
    if count > DIMENSION_LIMIT:
        raise InputError("DIMS", f"{count:,} dimensions, at most {DIMENSION_LIMIT} allowed", offset=start, key=name)
    shape = struct.unpack_from(f"<{count}Q", cursor.loaded, cursor.need(count * _LENGTH_BYTES))
    type_id, offset = _TENSOR_TAIL.unpack_from(cursor.loaded, cursor.need(_TENSOR_TAIL.size))
    try:
        type_ = GgmlType(type_id)
    except ValueError:
        raise InputError("TYPE", f"unknown tensor type {type_id}", offset=start, key=name) from None
    return TensorInfo(name, shape, type_, offset, tensor_bytes(name, shape, type_, alignment))


def _read_name(cursor: HeaderCursor) -> str:
    start = cursor.position
    length = cursor.u64()
    if length > TENSOR_NAME_LIMIT_BYTES:
        message = f"a tensor name of {length:,} bytes, at most {TENSOR_NAME_LIMIT_BYTES} allowed"
        raise InputError("NAME", message, offset=start)
    return check_name(cursor.take(length), offset=start)


def _check_extents(tensors: tuple[TensorInfo, ...], data_offset: int, file_bytes: int) -> None:
    for tensor in tensors:
        stop = data_offset + tensor.offset + tensor.size_bytes
        if stop > file_bytes:
            message = f"the data ends at byte {stop:,}, the file at {file_bytes:,}"
            hint = "get the file again, the copy is incomplete"
            raise InputError("DATA", message, key=tensor.name, hint=hint)
