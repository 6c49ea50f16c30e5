"""JSON of strangers: UTF-8 only, no duplicate keys, no NaN, bounded depth, digits and number of values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.formats.files import open_input
from modelbuild.late_pattern import late_pattern

#: Configuration files are kilobytes; tokenizers have their own limit.
FILE_LIMIT_BYTES = 16 << 20
DEPTH_LIMIT = 64
#: Each value takes up to 100 bytes and a microsecond: without it 16 MiB of empty lists would take 400 MiB and 3 s.
MARK_LIMIT = 1 << 20
#: Python converts long digit strings in quadratic time. Ollama writes whole numbers below 1e21 with all their digits,
#: and tokenizer configurations spell "no limit" as 10^30 written out.
DIGIT_LIMIT = 40

#: A string with its quotes, or the rest of the text after a quote that is never closed. Possessive, so that neither
#: memory nor time grows with what a backtracking pattern would remember.
_STRING = late_pattern(r'"[^"\\]*+(?:\\.[^"\\]*+|)*+(?:"|\\?\Z)', re.DOTALL)
#: Whole strings and what stands between them, some at a time, so that counting can stop early.
_PART = late_pattern(rb'(?:[^"]++|"[^"\\]*+(?:\\.[^"\\]*+|)*+(?:"|\\?\Z)|){1,65536}+', re.DOTALL)
#: An escape that is a character only together with another one.
_HALF_PAIR = late_pattern(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_MARKS = (b",", b":", b"[", b"{")
_ONE_BRACKET = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b",:[{")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def parse_json(
    data: bytes,
    *,
    path: Path | str,
    max_depth: int = DEPTH_LIMIT,
    max_marks: int = MARK_LIMIT,
    allow_nonfinite: bool = False,
) -> object:
    """The value of a JSON document; InputError JSON, LIMIT, or DUPLICATE for a repeated key.

    max_marks: how many commas, colons and opening brackets it may have outside of strings.
    """
    if not data.lstrip(b" \t\r\n"):
        raise InputError("JSON", "the document is empty", path=path)
    if has_more_marks(data, max_marks):
        raise InputError("LIMIT", f"more than {max_marks:,} values, keys and lists", path=path)
    _check_depth(data, max_depth, path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("JSON", f"not UTF-8: byte 0x{data[error.start]:02x}", path=path, offset=error.start) from error
    try:
        value = json.loads(
            text,
            object_pairs_hook=_pairs_reader(path),
            parse_int=_integer_reader(path),
            parse_constant=float if allow_nonfinite else _constant_refuser(path),
        )
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode("utf-8", "surrogatepass"))
        message = f"not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise InputError("JSON", message, path=path, offset=offset) from error
    half = _HALF_PAIR.search(text)
    if half and not _is_encodable(value):
        raise InputError("JSON", f"{half[0]} is half of a pair, and no character", path=path)
    return value


def read_json_object(
    path: Path, *, limit_bytes: int = FILE_LIMIT_BYTES, allow_nonfinite: bool = False
) -> dict[str, object]:
    """The JSON object in a file; InputError LIMIT, JSON, DUPLICATE, or CONFIG when it holds something else."""
    with open_input(path) as source:
        if source.size_bytes > limit_bytes:
            message = f"{source.size_bytes:,} bytes, at most {limit_bytes:,} allowed"
            raise InputError("LIMIT", message, path=path)
        data = source.read_at(0, source.size_bytes)
    value = parse_json(data, path=path, allow_nonfinite=allow_nonfinite)
    if not isinstance(value, dict):
        raise InputError("CONFIG", "a JSON object expected at the top level", path=path)
    return value


def has_more_marks(data: bytes, limit: int) -> bool:
    """Are there more commas, colons and opening brackets outside of strings than this? To be asked before parsing."""
    if sum(map(data.count, _MARKS)) <= limit:
        return False
    count = 0
    for part in _PART.finditer(data):
        count += len(_between_strings(part[0]).translate(None, _NO_MARKS))
        if count > limit:
            return True
    return False


def _between_strings(part: bytes) -> bytes:
    if b"\\" in part:
        return _without_strings(part)
    return b"".join(part.split(b'"')[::2])  # without escapes every other piece is a string


def _without_strings(data: bytes) -> bytes:
    # As text, because joining pieces of bytes takes 80 bytes for each piece, and text only 8.
    return _STRING.sub("", data.decode("latin-1")).encode("latin-1")


def _check_depth(data: bytes, max_depth: int, path: Path | str) -> None:
    """Refuse deep nesting before the parser recurses into it; linear in the text's length.

    Only the brackets outside of strings are kept. Each round takes away the innermost pairs, so a document needs as
    many rounds as it is deep; brackets without a partner stay, and make the parser fail at most that much deeper.
    """
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    brackets = _without_strings(data).translate(_ONE_BRACKET, _NO_BRACKETS)
    for _ in range(max_depth):
        brackets = brackets.replace(b"[]", b"")
    if b"[]" in brackets or brackets.count(b"[") > max_depth:
        raise InputError("JSON", f"nested deeper than {max_depth} levels", path=path)


def _is_encodable(value: object) -> bool:
    """Has no text in the value half of a surrogate pair? Everything that writes texts relies on it."""
    if isinstance(value, dict):
        return all(_is_encodable(key) and _is_encodable(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_encodable, value))
    return not isinstance(value, str) or not any("\ud800" <= char <= "\udfff" for char in value)


def _pairs_reader(path: Path | str) -> Callable[[list[tuple[str, object]]], dict[str, object]]:
    def read(pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise InputError("DUPLICATE", f"the key {printable(key)!r} stands twice in one object", path=path)
                seen.add(key)
        return value

    return read


def _integer_reader(path: Path | str) -> Callable[[str], int | float]:
    def read(text: str) -> int | float:
        if len(text) > DIGIT_LIMIT:
            raise InputError("JSON", f"a number of {len(text)} digits, at most {DIGIT_LIMIT} allowed", path=path)
        return int(text) if text != "-0" else -0.0  # Python has no such integer, and Ollama keeps the sign

    return read


def _constant_refuser(path: Path | str) -> Callable[[str], float]:
    def refuse(text: str) -> float:
        raise InputError("JSON", f"{text} is not a JSON number", path=path)

    return refuse
