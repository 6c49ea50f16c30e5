"""Escaping as Go's template functions `html`, `js`, `urlquery` and Ollama's `json` do it."""

from __future__ import annotations

import base64
import math
import re
from decimal import Decimal

from modelbuild.late_pattern import late_pattern
from modelbuild.template.quoting import to_bytes
from modelbuild.template.values import NO_VALUE, Map, Slice, Struct, unwrap

_HTML = str.maketrans({"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_JSON_ESCAPED = late_pattern('["\\\\\x00-\x1f<>&\u2028\u2029\ud800-\udfff]')
_JSON_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Ordered(dict[str, object]):
    """An object whose keys keep their order in JSON."""


def escape_html(text: str) -> str:
    """Text for HTML."""
    return text.translate(_HTML)


def escape_js(text: str) -> str:
    """Text for a JavaScript string."""
    return "".join(_JS.get(char) or _js_char(char) for char in text)


def _js_char(char: str) -> str:
    if " " <= char <= "~" or (char > "\x7f" and char.isprintable()):
        return char
    if char == "\x7f":
        return char
    point = 0xFFFD if 0xDC80 <= ord(char) <= 0xDCFF else ord(char)
    return f"\\u{point:04X}"


def escape_query(text: str) -> str:
    """Text for a URL query."""
    return "".join(
        chr(byte) if byte in _UNRESERVED else "+" if byte == 0x20 else f"%{byte:02X}" for byte in to_bytes(text)
    )


def to_json(value: object) -> str:
    """A value as Go's json.Marshal writes it; an empty text for what JSON cannot hold, as Ollama's `json` gives."""
    try:
        return "".join(_json_parts(value))
    except ValueError:
        return ""


def _json_parts(value: object) -> list[str]:
    value = unwrap(value)
    match value:
        case None:
            return ["null"]
        case bool():
            return ["true" if value else "false"]
        case str():
            return ['"', _JSON_ESCAPED.sub(_json_char, value), '"']
        case int():
            return [str(int(value))]
        case float():
            return [json_number(value)]
        case list():
            return _json_list(value)
        case Ordered():
            return _json_object(value)
        case dict():
            return _json_object({key: value[key] for key in sorted(value, key=to_bytes)})
        case Slice() | Map() | Struct():
            return _json_typed(value)
        case _ if value is NO_VALUE:
            return ["null"]
        case _:
            raise ValueError(type(value).__name__)


def _json_typed(value: Slice | Map | Struct) -> list[str]:
    if isinstance(value, Struct):
        return _json_parts(value.json_value()) if value.json_value else _json_object(dict(value.fields))
    if value.is_nil:
        return ["null"]
    if isinstance(value, Map):
        return _json_object({key: value.items[key] for key in sorted(value.items, key=to_bytes)})
    if value.type_name == "api.ImageData":
        data = bytes(int(item) for item in value.items if isinstance(item, int))
        return ['"', base64.b64encode(data).decode(), '"']
    return _json_list(list(value.items))


def _json_object(items: dict[str, object]) -> list[str]:
    parts = ["{"]
    for index, (key, item) in enumerate(items.items()):
        parts += ["," if index else "", '"', _JSON_ESCAPED.sub(_json_char, key), '":', *_json_parts(item)]
    return [*parts, "}"]


def _json_list(items: list[object]) -> list[str]:
    parts = ["["]
    for index, item in enumerate(items):
        parts += ["," if index else "", *_json_parts(item)]
    return [*parts, "]"]


def _json_char(match: re.Match[str]) -> str:
    char = match[0]
    if "\ud800" <= char <= "\udfff":
        return "\\ufffd"
    return _JSON_SHORT.get(char) or f"\\u{ord(char):04x}"


def json_number(number: float) -> str:
    """The shortest digits of a double, in JSON's notation as Go writes it."""
    if not math.isfinite(number):
        raise ValueError(f"{number} has no JSON form")
    magnitude = abs(number)
    if magnitude == 0:
        return "-0" if math.copysign(1.0, number) < 0 else "0"
    text = format(Decimal(repr(number)), "f")
    if 1e-6 <= magnitude < 1e21:
        return text.rstrip("0").rstrip(".") if "." in text else text
    digits, exponent = f"{Decimal(repr(number)).normalize():e}".split("e")
    return f"{digits}e{'-' if exponent.startswith('-') else '+'}{exponent.lstrip('+-').lstrip('0')}"
