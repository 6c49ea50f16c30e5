"""Reading fields of chat requests: the right type, or an error that names the place."""

from __future__ import annotations

import json
from collections.abc import Mapping

from modelbuild.errors import InputError, printable


def wrong_type(value: object, expected: str, place: str) -> InputError:
    """The error for a value of the wrong type."""
    found = printable(json.dumps(value, ensure_ascii=False, default=str))
    return InputError("JSON", f"{expected} expected, {found} found", key=place)


def text_field(item: Mapping[str, object], key: str, place: str) -> str:
    """A text, empty when absent or null."""
    value = item.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong_type(value, "text", f"{place}.{key}")
    return value


def object_field(item: Mapping[str, object], key: str, place: str) -> Mapping[str, object] | None:
    """An object, None when absent or null."""
    value = item.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise wrong_type(value, "an object", f"{place}.{key}")
    return value


def text_list(item: Mapping[str, object], key: str, place: str) -> list[str] | None:
    """A list of texts, None when absent or null."""
    value = item.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise wrong_type(value, "a list of texts", f"{place}.{key}")
    return value


def object_list(value: object, place: str) -> list[tuple[str, Mapping[str, object]]]:
    """The objects of a list, each with its place; an absent list is empty."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(value, "a list", place)
    for at, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise wrong_type(entry, "an object", f"{place}[{at}]")
    return [(f"{place}[{at}]", entry) for at, entry in enumerate(value)]


def any_value(value: object) -> object:
    """A JSON value as Go decodes it where any may stand: every number is a double."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): any_value(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [any_value(entry) for entry in value]
    raise TypeError(type(value).__name__)
