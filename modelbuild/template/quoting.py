"""Go's text literals: quoting as `%q` prints it, and reading quoted, raw and character constants.

Source: the Go language specification (string and rune literals) and the documentation of package strconv.
Bytes that are no UTF-8 (from `"\\xff"`) are carried in text as Python's `surrogateescape` characters.
"""

from __future__ import annotations

import re

_NAMED = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}
_SHORT = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 92: "\\"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_ESCAPE = (
    r"\\(?:(?P<octal>[0-7]{3})|x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})"
    r"|(?P<named>[abfnrtv\\'\"]))"
)
_MAX_CODE_POINT = 0x10FFFF


class LiteralSyntaxError(ValueError):
    """A literal that Go's strconv refuses; its text is Go's."""


def to_bytes(text: str) -> bytes:
    """The UTF-8 bytes of a text, with carried bytes as they were."""
    return text.encode("utf-8", "surrogateescape")


def from_bytes(data: bytes) -> str:
    """The text of UTF-8 bytes; bytes that are no UTF-8 are carried along."""
    return data.decode("utf-8", "surrogateescape")


def quote(text: str, quote_mark: str = '"', *, ascii_only: bool = False) -> str:
    """A text as Go's `%q` prints it, or `%+q` when ascii_only."""
    return quote_mark + "".join(_quoted_char(char, quote_mark, ascii_only) for char in text) + quote_mark


def _quoted_char(char: str, quote_mark: str, ascii_only: bool) -> str:
    point = ord(char)
    if char == quote_mark or point in _SHORT:
        return "\\" + _SHORT.get(point, char)
    if char.isprintable() and (point < 0x80 or not ascii_only):
        return char
    if 0xDC80 <= point <= 0xDCFF:  # a carried byte
        return f"\\x{point - 0xDC00:02x}"
    if point < 0x20 or point == 0x7F:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def describe_char(char: str) -> str:
    """A character as Go's `%#U` prints it: U+0041 'A'."""
    code = f"U+{ord(char):04X}"
    return f"{code} '{char}'" if char.isprintable() else code


def unquote(literal: str) -> str:
    """The value of a quoted or raw string literal, including its quotes; LiteralSyntaxError when Go refuses it."""
    mark, body = literal[0], literal[1:-1]
    if mark == "`":
        return body.replace("\r", "")
    if "\\" not in body:
        return body
    parts: list[bytes] = []
    position = 0
    while (found := body.find("\\", position)) >= 0:
        value, position_after = _escape_at(body, found, mark)
        parts += [to_bytes(body[position:found]), value]
        position = position_after
    return from_bytes(b"".join([*parts, to_bytes(body[position:])]))


def unquote_char(literal: str) -> int:
    """The code point (or byte) of a character constant, including its quotes."""
    body = literal[1:]
    if body.startswith("\\"):
        value, end = _escape_value(body, 0, "'")
        rest = body[end:]
    elif not body or body[0] in "'\n":
        raise LiteralSyntaxError("invalid syntax")
    else:
        value, rest = ord(body[0]), body[1:]
    if rest != "'":
        raise LiteralSyntaxError(f"malformed character constant: {literal}")
    return value


def _escape_at(body: str, position: int, mark: str) -> tuple[bytes, int]:
    """The bytes of an escape sequence, and where the text goes on."""
    value, end = _escape_value(body, position, mark)
    is_byte = body[position + 1] in "x01234567"
    return (bytes([value]) if is_byte else chr(value).encode()), end


def _escape_value(body: str, position: int, mark: str) -> tuple[int, int]:
    match = re.compile(_ESCAPE).match(body, position)
    if match is None:
        raise LiteralSyntaxError("invalid syntax")
    kind = match.lastgroup or ""
    digits = match[kind]
    if kind == "named":
        if digits in "'\"" and digits != mark:
            raise LiteralSyntaxError("invalid syntax")
        value = _NAMED[digits]
    else:
        value = int(digits, 8 if kind == "octal" else 16)
        is_bad_point = kind in "uU" and (value > _MAX_CODE_POINT or 0xD800 <= value <= 0xDFFF)
        if is_bad_point or (kind == "octal" and value > 0xFF):
            raise LiteralSyntaxError("invalid syntax")
    return value, match.end()
