"""Finds the first JSON value in a text, or says what is wrong with it in the words of Go's scanner."""

from __future__ import annotations

import re
from collections.abc import Callable

from modelbuild.errors import InputError
from modelbuild.formats.json_text import has_more_marks
from modelbuild.late_pattern import late_pattern

#: Go stops at 10,000 levels; no request needs more than these, and our parser recurses.
DEPTH_LIMIT = 64
#: Commas, colons and opening brackets outside of strings: ten thousand messages have some 100,000.
MARK_LIMIT = 1 << 18

_BLANKS = late_pattern(rb"[ \t\r\n]*")
# Each possessive repetition of a group ends with an empty alternative: without it the first releases of Python 3.11
# continue where the repetition that fails has got to, not where it began (python/cpython#106052).
_TEXT = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|)*+'
_STRING = late_pattern(_TEXT + rb'"')
_STRING_PART = late_pattern(_TEXT)
_NUMBER = late_pattern(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
#: What most requests consist of, swallowed in one step: entries that are text, numbers or words, and flat objects.
_SCALAR = rb"(?:" + _TEXT + rb'"|true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)'
_MEMBER = rb"[ \t\r\n]*+" + _TEXT + rb'"[ \t\r\n]*+:[ \t\r\n]*+' + _SCALAR + rb"[ \t\r\n]*+"
_FLAT = rb"\{" + _MEMBER + rb"(?:," + _MEMBER + rb"|)*+\}"
_PLAIN_MEMBERS = late_pattern(rb"(?:" + _MEMBER + rb",|)*+")
_PLAIN_ITEMS = late_pattern(rb"(?:[ \t\r\n]*+(?:" + _SCALAR + rb"|" + _FLAT + rb")[ \t\r\n]*+,|)*+")
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_VALUE_START = b'{["-0123456789tfn'


def find_value(body: bytes) -> slice:
    """The extent of the first JSON value of a request body.

    Raises InputError: EMPTY when there is nothing but blanks, LIMIT for too many values, JSON with Go's text otherwise.
    """
    start = _skip_blanks(body, 0)
    if start == len(body):
        raise InputError("EMPTY", "missing request body")
    if has_more_marks(body, MARK_LIMIT):
        raise InputError("LIMIT", f"more than {MARK_LIMIT:,} values, keys and lists in a request")
    return slice(start, _Scanner(body, start).scan())


class _Scanner:
    """One pass over one value, without recursion: each step does its part and names the next.

    `_open` holds the closing character of each open container.
    """

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._at = start
        self._open: list[int] = []
        self._next_step: Callable[[], None] | None = self._value

    def scan(self) -> int:
        """The offset behind the value."""
        while self._next_step is not None:
            self._next_step()
        return self._at

    def _value(self) -> None:
        if self._open and self._open[-1] == ord("]"):
            self._skip_run(_PLAIN_ITEMS)
        char = self._char()
        if char in b"{[":
            self._enter(char)
            return
        if char not in _VALUE_START:
            raise _invalid(char, "looking for beginning of value")
        if char == ord('"'):
            self._string()
        elif char in _LITERALS:
            self._literal(_LITERALS[char])
        else:
            self._number()
        self._after_value()

    def _enter(self, char: int) -> None:
        self._at += 1
        closing = ord("}") if char == ord("{") else ord("]")
        self._open.append(closing)
        if len(self._open) > DEPTH_LIMIT:
            raise InputError("JSON", "exceeded max depth")
        if self._char() == closing:
            self._leave()
        else:
            self._next_step = self._key if closing == ord("}") else self._value

    def _leave(self) -> None:
        self._at += 1
        self._open.pop()
        self._after_value()

    def _after_value(self) -> None:
        self._next_step = self._separator if self._open else None

    def _separator(self) -> None:
        char, is_object = self._char(), self._open[-1] == ord("}")
        if char == self._open[-1]:
            self._leave()
        elif char == ord(","):
            self._at += 1
            self._next_step = self._key if is_object else self._value
        else:
            raise _invalid(char, "after object key:value pair" if is_object else "after array element")

    def _key(self) -> None:
        self._skip_run(_PLAIN_MEMBERS)
        char = self._char()
        if char != ord('"'):
            raise _invalid(char, "looking for beginning of object key string")
        self._string()
        char = self._char()
        if char != ord(":"):
            raise _invalid(char, "after object key")
        self._at += 1
        self._next_step = self._value

    def _skip_run(self, plain: re.Pattern[bytes]) -> None:
        """Step over entries with their commas; the entry behind them is looked at as if it came first."""
        match = plain.match(self._data, self._at)
        if match:
            self._at = match.end()

    def _char(self) -> int:
        """The next byte that is no blank."""
        self._at = _skip_blanks(self._data, self._at)
        return self._byte(self._at)

    def _byte(self, at: int) -> int:
        if at >= len(self._data):
            raise InputError("JSON", "unexpected EOF")
        return self._data[at]

    def _string(self) -> None:
        whole = _STRING.match(self._data, self._at)
        if whole is not None:
            self._at = whole.end()
            return
        part = _STRING_PART.match(self._data, self._at)
        at = part.end() if part else self._at
        if self._byte(at) != ord("\\"):
            raise _invalid(self._byte(at), "in string literal")
        if self._byte(at + 1) != ord("u"):
            raise _invalid(self._byte(at + 1), "in string escape code")
        at += 2
        while self._byte(at) in b"0123456789abcdefABCDEF":
            at += 1
        raise _invalid(self._byte(at), "in \\u hexadecimal character escape")

    def _literal(self, word: bytes) -> None:
        for index in range(1, len(word)):
            char = self._byte(self._at + index)
            if char != word[index]:
                expected = f"(expecting {_quoted(word[index])})"
                raise _invalid(char, f"in literal {word.decode()} {expected}")
        self._at += len(word)

    def _number(self) -> None:
        match = _NUMBER.match(self._data, self._at)
        if match is None:
            raise _invalid(self._byte(self._at + 1), "in numeric literal")
        self._at = match.end()
        rest = self._data[self._at : self._at + 1]
        if rest == b"." and b"." not in match[0] and b"e" not in match[0].lower():
            raise _invalid(self._byte(self._at + 1), "after decimal point in numeric literal")
        if rest in (b"e", b"E") and b"e" not in match[0].lower():
            at = self._at + 1
            at += self._byte(at) in b"+-"
            raise _invalid(self._byte(at), "in exponent of numeric literal")


def _skip_blanks(data: bytes, at: int) -> int:
    match = _BLANKS.match(data, at)
    return match.end() if match else at


def _invalid(char: int, context: str) -> InputError:
    return InputError("JSON", f"invalid character {_quoted(char)} {context}")


def _quoted(char: int) -> str:
    """A byte in quotes as Go shows it: as the code point of that number, escaped where it is not printable."""
    special = {ord("'"): "\\'", ord('"'): '"', ord("\\"): "\\\\"}
    short = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
    shown = special.get(char) or short.get(char)
    if shown is None:
        text = chr(char)
        shown = text if text.isprintable() else f"\\x{char:02x}" if char < 0x80 else f"\\u{char:04x}"
    return f"'{shown}'"
