"""What a template computes with: Go's values in Python's clothes.

    Go                          here
    nil, missing                NO_VALUE
    interface{} holding v       Interface(v); a nil interface is Interface(NO_VALUE)
    bool, float64, complex128   bool, float, complex
    int                         int; uint8 is Byte
    string                      str (bytes that are no UTF-8 as surrogateescape characters)
    []interface{}               list
    map[string]interface{}      dict with str keys
    other slices, maps          Slice, Map
    struct, pointer to struct   Struct

Elements of list and dict are bare Python values and count as interface values when they are taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from modelbuild.records import record


class _NoValue:
    """The type of NO_VALUE."""

    def __repr__(self) -> str:
        return "NO_VALUE"


NO_VALUE: Final = _NoValue()


@record
class Interface:
    """A value seen through Go's empty interface."""

    value: object


class Byte(int):
    """A uint8, as indexing a text gives it."""


@record
class Slice:
    """A slice of known element type. as_text: its String method, if it has one."""

    type_name: str
    items: Sequence[object]
    is_nil: bool = False
    as_text: Callable[[], str] | None = None


@record
class Map:
    """A map from text to values of a known type. zero: what a missing key gives."""

    type_name: str
    items: Mapping[str, object]
    zero: object
    is_nil: bool = False
    as_text: Callable[[], str] | None = None


@record
class Struct:
    """A struct, or a pointer to one. fields: by Go name, in order; methods: those without arguments."""

    type_name: str
    fields: Mapping[str, object]
    is_pointer: bool = False
    as_text: Callable[[], str] | None = None
    methods: Mapping[str, Callable[[], str]] | None = None
    json_value: Callable[[], object] | None = None


class CallError(Exception):
    """A function refuses its arguments; the text is what Go prints after `error calling NAME:`."""


def unwrap(value: object) -> object:
    """The value inside an interface; other values as they are."""
    return value.value if isinstance(value, Interface) else value


def entry(container: dict[str, object] | Map, key: str) -> object:
    """The value of a key that a map holds, as Go sees it: through an interface where the element type is one."""
    return container.items[key] if isinstance(container, Map) else Interface(_or_none(container[key]))


def item(container: list[object] | Slice, at: int) -> object:
    """The item of a slice, as Go sees it: through an interface where the element type is one."""
    return container.items[at] if isinstance(container, Slice) else Interface(_or_none(container[at]))


def _or_none(value: object) -> object:
    return NO_VALUE if value is None else value


def is_nil(value: object) -> bool:
    """Whether Go's `== nil` holds."""
    value = unwrap(value)
    return value is NO_VALUE or (isinstance(value, Slice | Map) and value.is_nil)


def is_true(value: object) -> bool:
    """Go's truth of a value: false for nil, zero and empty, true for every struct."""
    value = unwrap(value)
    if value is NO_VALUE:
        return False
    if isinstance(value, Slice | Map):
        return bool(value.items)
    return isinstance(value, Struct) or bool(value)


def type_name(value: object) -> str:
    """The name of a value's Go type."""
    match value:
        case Interface():
            return "interface {}"
        case Struct():
            return f"*{value.type_name}" if value.is_pointer else value.type_name
        case Slice() | Map():
            return value.type_name
        case bool():
            return "bool"
        case Byte():
            return "uint8"
        case int():
            return "int"
        case float():
            return "float64"
        case complex():
            return "complex128"
        case str():
            return "string"
        case list():
            return "[]interface {}"
        case dict():
            return "map[string]interface {}"
        case _:
            return "<nil>"


def kind(value: object) -> str:
    """The group in which Go compares a value: bool, int, uint, float, complex, string, or "" for all others."""
    match value:
        case bool():
            return "bool"
        case Byte():
            return "uint"
        case int():
            return "int"
        case float():
            return "float"
        case complex():
            return "complex"
        case str():
            return "string"
        case _:
            return ""
