"""Metadata values as they stand in a GGUF file, and their meaning in Python."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from modelbuild.errors import InputError
from modelbuild.formats.gguf.limits import ARRAY_LIMIT, STRING_LIMIT_BYTES
from modelbuild.formats.gguf.types import ValueType
from modelbuild.records import record

#: What a value decodes to.
Value = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]

_CODES = {
    ValueType.U8: "B", ValueType.I8: "b", ValueType.U16: "H", ValueType.I16: "h", ValueType.U32: "I",
    ValueType.I32: "i", ValueType.U64: "Q", ValueType.I64: "q", ValueType.F32: "f", ValueType.F64: "d",
    ValueType.BOOL: "?",
}  # fmt: skip
_LENGTH = struct.Struct("<Q")
_ARRAY_HEAD = struct.Struct("<IQ")
#: Length prefixes made once; most tokens are shorter than this.
_SHORT_LENGTHS = tuple(_LENGTH.pack(length) for length in range(256))


@record
class RawValue:
    """A metadata value in its bytes.

    data: what stands in the file after the value's type, little endian: the scalar; a string with its 8-byte length;
    an array with its element type (4 bytes), length (8 bytes) and elements. Arrays do not nest.
    element_type, length: of an array; None and 0 otherwise.
    """

    type: ValueType
    data: bytes
    element_type: ValueType | None = None
    length: int = 0

    def decode(self) -> Value:
        """The value as bool, int, float, str or a list of these.

        Bytes of strings that are not UTF-8 become lone surrogates (surrogateescape): the exact bytes can be had back,
        and `errors.printable` shows them.
        """
        if self.type is ValueType.STRING:
            return _text(self.data[_LENGTH.size :])
        if self.element_type is ValueType.STRING:
            return [_text(item) for item in self.strings()]
        if self.element_type is not None:
            data = self.data[_ARRAY_HEAD.size :]
            return list(struct.unpack(f"<{self.length}{_CODES[self.element_type]}", data))
        value: Value
        (value,) = struct.unpack(f"<{_CODES[self.type]}", self.data)
        return value

    def strings(self) -> list[bytes]:
        """The elements of a string array as bytes; AssertionError when it is none."""
        assert self.element_type is ValueType.STRING, "only arrays of strings have strings"
        data, read = self.data, _LENGTH.unpack_from
        items: list[bytes] = []
        position = _ARRAY_HEAD.size
        for _ in range(self.length):
            start = position + 8
            position = start + read(data, position)[0]
            items.append(data[start:position])
        return items


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def encode_scalar(type_: ValueType, value: bool | float) -> RawValue:
    """A number or boolean as a value of a type; InputError META when it does not fit."""
    try:
        return RawValue(type_, struct.pack(f"<{_CODES[type_]}", value))
    except (struct.error, OverflowError) as error:
        raise InputError("META", f"{value!r} does not fit the type {type_.name}") from error


def encode_string(text: str | bytes) -> RawValue:
    """A text as a string value; InputError STRING when it is too long or holds lone surrogates."""
    data = _utf8(text)
    _check_string(len(data))
    return RawValue(ValueType.STRING, _LENGTH.pack(len(data)) + data)


def encode_strings(texts: Iterable[str | bytes]) -> RawValue:
    """Texts as an array of strings; errors as `encode_string`."""
    try:
        items = [text.encode() if isinstance(text, str) else text for text in texts]  # a vocabulary: no call for each
    except UnicodeEncodeError as error:
        raise _lone_surrogate(error) from error
    longest = max(map(len, items), default=0)
    _check_string(longest)
    _check_length(len(items))
    if longest < len(_SHORT_LENGTHS):
        elements = [_SHORT_LENGTHS[len(item)] + item for item in items]
    else:
        elements = [_LENGTH.pack(len(item)) + item for item in items]
    data = _ARRAY_HEAD.pack(ValueType.STRING, len(items)) + b"".join(elements)
    return RawValue(ValueType.ARRAY, data, ValueType.STRING, len(items))


def encode_numbers(type_: ValueType, values: Sequence[bool] | Sequence[int] | Sequence[float]) -> RawValue:
    """Numbers or booleans as an array; InputError META when one does not fit the element type."""
    _check_length(len(values))
    try:
        data = struct.pack(f"<{len(values)}{_CODES[type_]}", *values)
    except (struct.error, OverflowError) as error:
        raise InputError("META", f"an element does not fit the type {type_.name}: {error}") from error
    return RawValue(ValueType.ARRAY, _ARRAY_HEAD.pack(type_, len(values)) + data, type_, len(values))


def _utf8(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _lone_surrogate(error) from error


def _lone_surrogate(error: UnicodeEncodeError) -> InputError:
    return InputError("STRING", f"a text with a lone surrogate at character {error.start}")


def _check_string(size_bytes: int) -> None:
    if size_bytes > STRING_LIMIT_BYTES:
        raise InputError("STRING", f"a text of {size_bytes:,} bytes, at most {STRING_LIMIT_BYTES:,} allowed")


def _check_length(length: int) -> None:
    if length > ARRAY_LIMIT:
        raise InputError("ARRAY", f"an array of {length:,} elements, at most {ARRAY_LIMIT:,} allowed")
