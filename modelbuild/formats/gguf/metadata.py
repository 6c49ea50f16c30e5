"""The metadata of a GGUF file: ordered, and raw until a value is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar, cast

from modelbuild.errors import InputError
from modelbuild.formats.gguf.types import ValueType
from modelbuild.formats.gguf.values import RawValue
from modelbuild.records import record

T = TypeVar("T")
_INTEGERS = frozenset(
    {
        ValueType.U8,
        ValueType.I8,
        ValueType.U16,
        ValueType.I16,
        ValueType.U32,
        ValueType.I32,
        ValueType.U64,
        ValueType.I64,
    }
)
_FLOATS = frozenset({ValueType.F32, ValueType.F64})
_INT64_MIN, _UINT64_MAX = -(1 << 63), (1 << 64) - 1


@record
class ValueSpan:
    """Where in the header's bytes a value stands; for an array also what it holds."""

    type: ValueType
    start: int
    stop: int
    element_type: ValueType | None = None
    length: int = 0


class Metadata(Mapping[str, RawValue]):
    """Keys and values in file order; a value is copied out of the header when it is asked for, not before.

    The `get_*` accessors mirror readers that ignore what they do not expect: None when the key is missing or has
    another type. The strict ones (`string`, `integer`, ...) raise InputError META instead.
    """

    __slots__ = ("_header", "_spans", "path")

    def __init__(self, header: bytes | bytearray, spans: Mapping[str, ValueSpan], path: Path | None = None) -> None:
        self._header = header
        self._spans = spans
        self.path = path

    def __getitem__(self, key: str) -> RawValue:
        span = self._spans[key]
        return RawValue(span.type, bytes(self._header[span.start : span.stop]), span.element_type, span.length)

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __contains__(self, key: object) -> bool:
        return key in self._spans

    def type_of(self, key: str) -> str:
        """The type of a value in words, e.g. "U32" or "ARRAY of STRING"; "" when the key is missing."""
        span = self._spans.get(key)
        if span is None:
            return ""
        return span.type.name if span.element_type is None else f"ARRAY of {span.element_type.name}"

    def length_of(self, key: str) -> int | None:
        """The number of elements of an array, without reading it; None when the key is missing or no array."""
        span = self._spans.get(key)
        return None if span is None or span.element_type is None else span.length

    # -- None when missing or of another type ----------------------------------------------------------------------

    def get_string(self, key: str) -> str | None:
        """The text of a string value."""
        return cast("str | None", self._decoded(key, {ValueType.STRING}))

    def get_u32(self, key: str) -> int | None:
        """The number of a value stored as exactly U32."""
        return cast("int | None", self._decoded(key, {ValueType.U32}))

    def get_integer(self, key: str, minimum: int = _INT64_MIN, maximum: int = _UINT64_MAX) -> int | None:
        """The number of a value of any integer type, when it lies in the range (both ends included)."""
        number = cast("int | None", self._decoded(key, _INTEGERS))
        return number if number is not None and minimum <= number <= maximum else None

    def get_boolean(self, key: str) -> bool | None:
        """The truth of a boolean value."""
        return cast("bool | None", self._decoded(key, {ValueType.BOOL}))

    def get_float(self, key: str) -> float | None:
        """The number of a value of a floating-point type."""
        return cast("float | None", self._decoded(key, _FLOATS))

    def get_strings(self, key: str) -> list[str] | None:
        """The texts of an array of strings."""
        return cast("list[str] | None", self._decoded_array(key, {ValueType.STRING}))

    def get_integers(self, key: str) -> list[int] | None:
        """The numbers of an array of any integer type."""
        return cast("list[int] | None", self._decoded_array(key, _INTEGERS))

    def get_numbers(self, key: str) -> list[float] | None:
        """The numbers of an array of any integer or floating-point type."""
        return cast("list[float] | None", self._decoded_array(key, _INTEGERS | _FLOATS))

    def get_booleans(self, key: str) -> list[bool] | None:
        """The truths of an array of booleans."""
        return cast("list[bool] | None", self._decoded_array(key, {ValueType.BOOL}))

    def _decoded(self, key: str, types: frozenset[ValueType] | set[ValueType]) -> object:
        span = self._spans.get(key)
        return self[key].decode() if span is not None and span.type in types else None

    def _decoded_array(self, key: str, types: frozenset[ValueType] | set[ValueType]) -> object:
        span = self._spans.get(key)
        return self[key].decode() if span is not None and span.element_type in types else None

    # -- InputError META when missing or of another type -----------------------------------------------------------

    def string(self, key: str) -> str:
        """The text of a string value."""
        return self._required(key, self.get_string(key), "a string")

    def integer(self, key: str, minimum: int = _INT64_MIN, maximum: int = _UINT64_MAX) -> int:
        """The number of a value of any integer type within a range (both ends included)."""
        number = self._required(key, self.get_integer(key), "an integer")
        if not minimum <= number <= maximum:
            raise self._wrong(key, f"{number} is out of range, {minimum} to {maximum} is allowed")
        return number

    def boolean(self, key: str) -> bool:
        """The truth of a boolean value."""
        return self._required(key, self.get_boolean(key), "a boolean")

    def number(self, key: str) -> float:
        """The number of a value of a floating-point type."""
        return self._required(key, self.get_float(key), "a floating-point number")

    def strings(self, key: str) -> list[str]:
        """The texts of an array of strings."""
        return self._required(key, self.get_strings(key), "an array of strings")

    def integers(self, key: str) -> list[int]:
        """The numbers of an array of any integer type."""
        return self._required(key, self.get_integers(key), "an array of integers")

    def numbers(self, key: str) -> list[float]:
        """The numbers of an array of any integer or floating-point type."""
        return self._required(key, self.get_numbers(key), "an array of numbers")

    def _required(self, key: str, value: T | None, expected: str) -> T:
        if value is None:
            found = self.type_of(key)
            raise self._wrong(
                key, f"{expected} is expected, found {found}" if found else f"missing; {expected} is expected"
            )
        return value

    def _wrong(self, key: str, message: str) -> InputError:
        return InputError("META", message, path=self.path, key=key)
