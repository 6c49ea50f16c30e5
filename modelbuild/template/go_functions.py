"""Go's built-in template functions on values, with Go's error texts. Pure.

Each takes evaluated arguments (Interface where Go passes one) and returns a value. CallError carries the text that
Go prints after "error calling NAME: ".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from modelbuild.template.escaping import escape_html, escape_js, escape_query
from modelbuild.template.formatting import Directive, format_value, sprint
from modelbuild.template.quoting import from_bytes, to_bytes
from modelbuild.template.values import (
    NO_VALUE,
    Byte,
    CallError,
    Interface,
    Map,
    Slice,
    Struct,
    entry,
    is_nil,
    is_true,
    item,
    kind,
    type_name,
    unwrap,
)

_NO_TYPE = "reflect: call of reflect.Value.Type on zero Value"
_BAD_TYPE = "invalid type for comparison"
_AS_TEXT = Directive("s")
_AS_DEFAULT = Directive("v")


def negate(value: object) -> bool:
    """not: whether a value is false."""
    return not is_true(value)


def length(value: object) -> int:
    """len: items of a container, bytes of a text."""
    if isinstance(value, Interface) and value.value is NO_VALUE:
        raise CallError("len of nil pointer")
    value = unwrap(value)
    if value is NO_VALUE:
        raise CallError(_NO_TYPE)
    if isinstance(value, Slice | Map):
        return len(value.items)
    if isinstance(value, str):
        return len(to_bytes(value))
    if isinstance(value, list | dict):
        return len(value)
    raise CallError(f"len of type {_target_type(value)}")


def _target_type(value: object) -> str:
    """The type of what a pointer points to, of other values their own."""
    return value.type_name if isinstance(value, Struct) else type_name(value)


def index(container: object, *keys: object) -> object:
    """index: an item of a container, and so on into it."""
    container = unwrap(container)
    if container is NO_VALUE:
        raise CallError("index of untyped nil")
    for key in keys:
        if isinstance(container, Interface):
            if container.value is NO_VALUE:
                raise CallError("index of nil pointer")
            container = container.value
        container = _index_once(container, unwrap(key))
    return container


def _index_once(container: object, key: object) -> object:
    if isinstance(container, dict | Map):
        return _look_up(container, key)
    if isinstance(container, list | Slice):
        count = len(container.items if isinstance(container, Slice) else container)
        at = _bounded(key, count)
        if at == count:
            raise CallError("reflect: slice index out of range")
        return item(container, at)
    if isinstance(container, str):
        data = to_bytes(container)
        at = _bounded(key, len(data))
        if at == len(data):
            raise CallError("reflect: string index out of range")
        return Byte(data[at])
    raise CallError(f"can't index item of type {_target_type(container)}")


def _look_up(container: dict[str, object] | Map, key: object) -> object:
    if key is NO_VALUE:
        raise CallError("value is nil; should be of type string")
    if not isinstance(key, str):
        raise CallError(f"value has type {type_name(key)}; should be string")
    if key in (container.items if isinstance(container, Map) else container):
        return entry(container, key)
    return container.zero if isinstance(container, Map) else Interface(NO_VALUE)


def _bounded(key: object, limit: int) -> int:
    """A position from 0 to limit."""
    if key is NO_VALUE:
        raise CallError("cannot index slice/array with nil")
    if not isinstance(key, int) or isinstance(key, bool):
        raise CallError(f"cannot index slice/array with type {type_name(key)}")
    if not 0 <= key <= limit:
        raise CallError(f"index out of range: {int(key)}")
    return int(key)


def cut(whole: object, *keys: object) -> object:
    """slice: a part of a text (by bytes) or of a list."""
    whole = unwrap(whole)
    if whole is NO_VALUE:
        raise CallError("slice of untyped nil")
    if len(keys) > 3:
        raise CallError(f"too many slice indexes: {len(keys)}")
    is_text = isinstance(whole, str)
    if is_text and len(keys) == 3:
        raise CallError("cannot 3-index slice a string")
    if not isinstance(whole, str | list | Slice):
        raise CallError(f"can't slice item of type {_target_type(whole)}")
    units = to_bytes(whole) if isinstance(whole, str) else whole.items if isinstance(whole, Slice) else whole
    bounds = [0, len(units)]
    bounds[: len(keys)] = [_bounded(key, len(units)) for key in keys]
    for low, high in pairwise(bounds):
        if low > high:
            raise CallError(f"invalid slice index: {low} > {high}")
    part = units[bounds[0] : bounds[1]]
    if isinstance(part, bytes):
        return from_bytes(part)
    return Slice(whole.type_name, part, as_text=None) if isinstance(whole, Slice) else list(part)


def equal(first: object, *others: object) -> bool:
    """eq: whether the first value equals one of the others."""
    if not others:
        raise CallError("missing argument for comparison")
    return any(_equal(unwrap(first), unwrap(other)) for other in others)


def _equal(first: object, second: object) -> bool:
    kinds = (kind(first), kind(second))
    if set(kinds) <= {"int", "uint"} or (kinds[0] == kinds[1] and kinds[0]):
        return first == second
    if kinds[0] != kinds[1]:
        if first is NO_VALUE or second is NO_VALUE:
            return False
        raise CallError(f"incompatible types for comparison: {type_name(first)} and {type_name(second)}")
    if first is not NO_VALUE and second is not NO_VALUE and _shape(first) != _shape(second):
        raise CallError(
            f"non-comparable types {_shown(first, _AS_TEXT)}: {type_name(first)}, "
            f"{type_name(second)}: {_shown(second, _AS_DEFAULT)}"
        )
    if is_nil(first) or is_nil(second):
        return is_nil(first) == is_nil(second)
    if not isinstance(second, Struct):
        raise CallError(f"non-comparable type {_shown(second, _AS_TEXT)}: {type_name(second)}")
    return first is second


def _shape(value: object) -> str:
    """Go's kind of a value that is no number, text or bool."""
    if isinstance(value, Struct):
        return "ptr" if value.is_pointer else "struct"
    return "map" if isinstance(value, dict | Map) else "slice"


def _shown(value: object, directive: Directive) -> str:
    return format_value(value, directive)


def differs(first: object, second: object) -> bool:
    """ne: whether two values differ."""
    return not equal(first, second)


def less(first: object, second: object) -> bool:
    """lt: whether the first value is the smaller."""
    first, second = unwrap(first), unwrap(second)
    kinds = (kind(first), kind(second))
    if not all(kinds):
        raise CallError(_BAD_TYPE)
    if kinds[0] != kinds[1] and not set(kinds) <= {"int", "uint"}:
        raise CallError(f"incompatible types for comparison: {type_name(first)} and {type_name(second)}")
    if isinstance(first, str) and isinstance(second, str):
        return to_bytes(first) < to_bytes(second)
    if isinstance(first, int | float) and isinstance(second, int | float) and "bool" not in kinds:
        return first < second
    raise CallError(_BAD_TYPE)


def less_or_equal(first: object, second: object) -> bool:
    """le: whether the first value is not the larger."""
    return less(first, second) or equal(first, second)


def greater(first: object, second: object) -> bool:
    """gt: whether the first value is the larger."""
    return not less_or_equal(first, second)


def greater_or_equal(first: object, second: object) -> bool:
    """ge: whether the first value is not the smaller."""
    return not less(first, second)


def call(name: str, function: object) -> object:
    """call: always an error, since no data of Ollama holds a function."""
    function = unwrap(function)
    if function is NO_VALUE:
        raise CallError("call of nil")
    raise CallError(f"non-function {name} of type {type_name(function)}")


def escaper(escape: Callable[[str], str]) -> Callable[..., str]:
    """html, js or urlquery: the escaped text of all arguments."""

    def run(*values: object) -> str:
        return escape(_joined(values))

    return run


def _joined(values: Sequence[object]) -> str:
    """The arguments as print shows them, with <no value> for nil ones."""
    return sprint(["<no value>" if unwrap(value) is NO_VALUE else _pointed_to(unwrap(value)) for value in values])


def _pointed_to(value: object) -> object:
    if isinstance(value, Struct) and value.is_pointer:
        return Struct(value.type_name, value.fields, as_text=value.as_text)
    return value


ESCAPERS: dict[str, Callable[..., str]] = {
    "html": escaper(escape_html),
    "js": escaper(escape_js),
    "urlquery": escaper(escape_query),
}
