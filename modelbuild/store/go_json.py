"""JSON written exactly as Ollama (Go's encoding/json) writes it, because digests depend on each byte.

Rules: `<`, `>`, `&`, U+2028 and U+2029 are escaped, DEL and all other characters stay raw, numbers are
IEEE doubles in Go's notation, objects come in the order given (`sort_keys` for free-form ones).
Source: create-request behaviour of Ollama, August 2026, measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from modelbuild.late_pattern import late_pattern

_ESCAPED = late_pattern('["\\\\\x00-\x1f<>&\u2028\u2029\ud800-\udfff]')
_SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
#: Go switches to exponent notation outside this range of magnitudes.
_PLAIN_MIN, _PLAIN_MAX = 1e-6, 1e21


class ExactInteger(int):
    """An integer that is written with all its digits, as Go writes its integer types."""


def encode_go_json(value: object, *, sort_keys: bool = False) -> bytes:
    """Compact UTF-8 JSON without a final newline.

    Every int (but ExactInteger) and float becomes a double first, as in Go for `any`; ValueError for NaN, infinity and
    types that JSON does not have. Lone surrogates become U+FFFD.
    """
    parts: list[str] = []
    _write(value, parts, sort_keys)
    return "".join(parts).encode("utf-8")


def format_go_float(number: float) -> str:
    """The shortest text of a double that reads back equal, in Go's notation."""
    if not math.isfinite(number):
        raise ValueError(f"{number} has no JSON form")
    magnitude = abs(number)
    if magnitude == 0:
        return "-0" if math.copysign(1.0, number) < 0 else "0"
    text = repr(number)
    if "e" not in text:
        return text.removesuffix(".0")
    from decimal import Decimal  # which hardly any number needs

    if _PLAIN_MIN <= magnitude < _PLAIN_MAX:
        return format(Decimal(text), "f")
    digits, exponent = f"{Decimal(text):e}".split("e")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{digits}e{'-' if exponent.startswith('-') else '+'}{exponent.lstrip('+-').lstrip('0')}"


def _write(value: object, parts: list[str], sort_keys: bool) -> None:
    if value is None or isinstance(value, bool):
        parts.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, str):
        parts.append(_quote(value))
    elif isinstance(value, ExactInteger):
        parts.append(str(int(value)))
    elif isinstance(value, int | float):
        parts.append(format_go_float(_as_double(value)))
    elif isinstance(value, Mapping):
        _write_object(value, parts, sort_keys)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        _write_array(value, parts, sort_keys)
    else:
        raise ValueError(f"{type(value).__name__} has no JSON form")


def _as_double(number: float) -> float:
    try:
        return float(number)
    except OverflowError as error:
        raise ValueError("a number this large has no JSON form") from error


def _write_object(value: Mapping[str, object], parts: list[str], sort_keys: bool) -> None:
    parts.append("{")
    for index, key in enumerate(sorted(value) if sort_keys else value):
        parts.append(("," if index else "") + _quote(key) + ":")
        _write(value[key], parts, sort_keys)
    parts.append("}")


def _write_array(value: Sequence[object], parts: list[str], sort_keys: bool) -> None:
    parts.append("[")
    for index, item in enumerate(value):
        if index:
            parts.append(",")
        _write(item, parts, sort_keys)
    parts.append("]")


def _quote(text: str) -> str:
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if "\ud800" <= char <= "\udfff":
        return "\ufffd"
    return _SHORT_ESCAPES.get(char) or f"\\u{ord(char):04x}"
