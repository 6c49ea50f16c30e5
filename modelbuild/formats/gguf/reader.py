"""Reads the header of a GGUF file: bounded in time and memory, checked in full, values left as bytes.

Token arrays of modern vocabularies hold half a million strings. They are walked, so that every length is proven and
the next key is found, but no Python object is made for a string that nobody asks for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.formats.files import InputFile, open_input
from modelbuild.formats.gguf.limits import (
    ALIGNMENT_KEY,
    ARRAY_LIMIT,
    DEFAULT_ALIGNMENT,
    DIMENSION_LIMIT,
    HEADER_LIMIT_BYTES,
    KEY_COUNT_LIMIT,
    KEY_LIMIT_BYTES,
    MAGIC,
    STRING_LIMIT_BYTES,
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

_VERSIONS = (2, 3)
#: The first read suffices for small files; later ones are large enough that their number does not matter.
_FIRST_READ_BYTES = 64 << 10
_READ_BYTES = 1 << 20
#: The smallest possible entries: a key of one byte with a one-byte value; a nameless scalar tensor of one byte name.
_SMALLEST_KEY_BYTES = 14
_SMALLEST_TENSOR_BYTES = 25

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_START = struct.Struct("<4sIQQ")
_ARRAY_HEAD = struct.Struct("<IQ")
_TENSOR_TAIL = struct.Struct("<IQ")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
            return _read_header(_Cursor(source))
        except InputError as error:
            if error.path is None:
                error.path = path
            raise


class _Cursor:
    """A position in a file of which the part up to the position, and a little more, is in memory.

    `loaded` grows by at most one read beyond what was asked for, so `loaded` never reaches further than
    _READ_BYTES past the position that was asked for last.
    """

    def __init__(self, source: InputFile) -> None:
        self.source = source
        self.loaded = bytearray()
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes between the position and the end of the file."""
        return self.source.size_bytes - self.position

    def need(self, size: int) -> int:
        """Make sure that `size` bytes from the position are in memory; returns the position and moves past them."""
        start = self.position
        if size > self.remaining:
            message = f"{size:,} bytes expected, {self.remaining:,} left in the file"
            raise InputError("TRUNCATED", message, offset=start, hint="get the file again, the copy is incomplete")
        self._load(start + size)
        self.position = start + size
        return start

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self.need(size)
        return bytes(self.loaded[start : start + size])

    def u32(self) -> int:
        """The next 4 bytes as a number."""
        return int(_U32.unpack_from(self.loaded, self.need(_U32.size))[0])

    def u64(self) -> int:
        """The next 8 bytes as a number."""
        return int(_U64.unpack_from(self.loaded, self.need(_U64.size))[0])

    def _load(self, stop: int) -> None:
        if stop <= len(self.loaded):
            return
        if stop > HEADER_LIMIT_BYTES:
            message = f"the header is longer than {HEADER_LIMIT_BYTES >> 20} MiB"
            raise InputError("HEADER", message, offset=self.position)
        step = _READ_BYTES if self.loaded else _FIRST_READ_BYTES
        size = max(stop - len(self.loaded), min(step, self.source.size_bytes - len(self.loaded)))
        self.loaded += self.source.read_at(len(self.loaded), size)

    def skip_strings(self, count: int) -> None:
        """Move past `count` strings, each with its length in front; InputError STRING or TRUNCATED."""
        while count:
            count -= self._skip_loaded_strings(count)
            if count:
                self._skip_string()
                count -= 1

    def _skip_loaded_strings(self, count: int) -> int:
        """Move past those of the next strings that are in memory as a whole; returns how many.

        This loop is the hot spot of the reader, hence its bare form: one unpack and one comparison for each string.
        A string that passes is in memory, and no more than one read beyond the position is, so it is far shorter than
        the limit.
        """
        read, loaded = _U64.unpack_from, self.loaded
        position, last_start = self.position, len(loaded) - _U64.size
        done = 0
        for done in range(count):  # noqa: B007  the count of strings passed, used after the loop
            if position > last_start:
                break
            following = position + 8 + read(loaded, position)[0]
            if following > len(loaded):
                break
            position = following
        else:
            done = count
        self.position = position
        return done

    def _skip_string(self) -> None:
        start = self.position
        length = self.u64()
        check_string_length(length, start)
        self.need(length)


def check_string_length(length: int, offset: int) -> None:
    """InputError STRING when a string claims more than the limit."""
    if length > STRING_LIMIT_BYTES:
        message = f"a string of {length:,} bytes, at most {STRING_LIMIT_BYTES:,} allowed"
        raise InputError("STRING", message, offset=offset)


def _read_header(cursor: _Cursor) -> GgufHeader:
    version, tensor_count, key_count = _read_start(cursor)
    spans = _read_keys(cursor, key_count)
    kv = Metadata(cursor.loaded, spans, cursor.source.path)
    alignment = _read_alignment(kv)
    tensors = _read_tensors(cursor, tensor_count, alignment)
    data_offset = padded(cursor.position, alignment)
    _check_extents(tensors, data_offset, cursor.source.size_bytes)
    del cursor.loaded[cursor.position :]
    return GgufHeader(cursor.source.path, version, kv, tensors, data_offset, alignment, cursor.source.size_bytes)


def _read_start(cursor: _Cursor) -> tuple[int, int, int]:
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


def _wrong_magic(cursor: _Cursor, magic: bytes) -> InputError:
    start = cursor.source.read_at(0, min(SIGNATURE_BYTES, cursor.source.size_bytes))
    what, hint = describe_format(start)
    found = what or f"a file that starts with {printable(magic.decode('latin-1'))!r}"
    return InputError("MAGIC", f"a GGUF file is expected, found {found}", offset=0, hint=hint)


def _check_count(count: int, limit: int, what: str, offset: int) -> None:
    if count > limit:
        message = f"the file claims {count:,} {what}, a file of this size has room for {limit:,}"
        raise InputError("COUNT", message, offset=offset)


def _read_keys(cursor: _Cursor, count: int) -> dict[str, ValueSpan]:
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


def _read_key(cursor: _Cursor) -> str:
    start = cursor.position
    length = cursor.u64()
    if length > cursor.remaining:
        message = f"a key of {length:,} bytes, {cursor.remaining:,} left in the file"
        raise InputError("STRING", message, offset=start)
    if length > KEY_LIMIT_BYTES:
        raise InputError("KEY", f"a key of {length:,} bytes, 1 to {KEY_LIMIT_BYTES:,} allowed", offset=start)
    return check_key(cursor.take(length), offset=start)


def _read_value(cursor: _Cursor) -> ValueSpan:
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


def _value_type(cursor: _Cursor) -> ValueType:
    start = cursor.position
    id_ = cursor.u32()
    try:
        return ValueType(id_)
    except ValueError:
        raise InputError("TYPE", f"unknown value type {id_}", offset=start) from None


def _skip_array(cursor: _Cursor) -> tuple[ValueType, int]:
    start = cursor.position
    element_type = _value_type(cursor)
    if element_type is ValueType.ARRAY:
        raise InputError("NESTED", "an array of arrays, which no GGUF key uses", offset=start)
    length = cursor.u64()
    if length > ARRAY_LIMIT:
        raise InputError("ARRAY", f"an array of {length:,} elements, at most {ARRAY_LIMIT:,} allowed", offset=start)
    smallest_bytes = length * VALUE_BYTES.get(element_type, _U64.size)
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


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[TensorInfo, ...]:
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


def _read_tensor(cursor: _Cursor, names: set[str], alignment: int) -> TensorInfo:
    start = cursor.position
    name = _read_name(cursor)
    if name in names:
        raise InputError("DUPLICATE", "two tensors have this name", offset=start, key=name)
    count = cursor.u32()
    if count > DIMENSION_LIMIT:
        raise InputError("DIMS", f"{count:,} dimensions, at most {DIMENSION_LIMIT} allowed", offset=start, key=name)
    shape = struct.unpack_from(f"<{count}Q", cursor.loaded, cursor.need(count * _U64.size))
    type_id, offset = _TENSOR_TAIL.unpack_from(cursor.loaded, cursor.need(_TENSOR_TAIL.size))
    try:
        type_ = GgmlType(type_id)
    except ValueError:
        raise InputError("TYPE", f"unknown tensor type {type_id}", offset=start, key=name) from None
    return TensorInfo(name, shape, type_, offset, tensor_bytes(name, shape, type_, alignment))


def _read_name(cursor: _Cursor) -> str:
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
