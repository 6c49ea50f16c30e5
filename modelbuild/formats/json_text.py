"""JSON of strangers: UTF-8 only, no duplicate keys, no NaN, bounded depth, digits and number of values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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

#: Python keeps a text in 1, 2 or 4 bytes for each character, by its widest one: a single emoji makes it four times as
#: long as the file.
TEXT_LIMIT_BYTES = 64 << 20
_WIDTHS = ((4, late_pattern(rb"[\xf0-\xff]")), (2, late_pattern(rb"[\xc4-\xef]")))
_CONTINUATIONS = bytes(range(0x80, 0xC0))

#: Short strings without escapes and what stands between them, some at a time, so that counting can stop early and takes
#: little memory; or one long string. Possessive, so that neither memory nor time grows with what a backtracking pattern
#: would remember; the empty alternative: see recipe/go_scan.py.
_PART = late_pattern(rb'((?=[^"]|"[^"]{0,4096}+")(?:[^"]{1,4096}+|"[^"]{0,4096}+"|){1,1024}+)|"[^"]*+(?:"|\Z)')
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
    max_text_bytes: int = TEXT_LIMIT_BYTES,
    allow_nonfinite: bool = False,
) -> object:
    """The value of a JSON document; InputError JSON, LIMIT, or DUPLICATE for a repeated key.

    max_marks: how many commas, colons and opening brackets it may have outside of strings. max_text_bytes: how much
    memory its text may take.
    """
    if not data.lstrip(b" \t\r\n"):
        raise InputError("JSON", "the document is empty", path=path)
    _check_structure(data, max_depth, max_marks, path)
    text = _decode(data, max_text_bytes, path)
    del data  # where nobody else holds it, there is one copy less while values are made
    try:
        value = json.loads(
            text,
            object_pairs_hook=_pairs_reader(path),
            parse_int=_integer_reader(path),
            parse_constant=float if allow_nonfinite else _constant_refuser(path),
        )
    except json.JSONDecodeError as error:
        message = f"not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise InputError("JSON", message, path=path, offset=_bytes_before(text, error.pos)) from error
    half = _HALF_PAIR.search(text)
    if half and not _is_encodable(value):
        raise InputError("JSON", f"{half[0]} is half of a pair, and no character", path=path)
    return value


def read_json_object(
    path: Path, *, limit_bytes: int = FILE_LIMIT_BYTES, allow_nonfinite: bool = False
) -> dict[str, object]:
    """The JSON object in a file; InputError LIMIT, JSON, DUPLICATE, or CONFIG when it holds something else."""
    value = parse_json(_read(path, limit_bytes), path=path, allow_nonfinite=allow_nonfinite)
    if not isinstance(value, dict):
        raise InputError("CONFIG", "a JSON object expected at the top level", path=path)
    return value


def _read(path: Path, limit_bytes: int) -> bytes:
    with open_input(path) as source:
        if source.size_bytes > limit_bytes:
            message = f"{source.size_bytes:,} bytes, at most {limit_bytes:,} allowed"
            raise InputError("LIMIT", message, path=path)
        return source.read_at(0, source.size_bytes)


def has_more_marks(data: bytes, limit: int) -> bool:
    """Are there more commas, colons and opening brackets outside of strings than this? To be asked before parsing."""
    return sum(map(data.count, _MARKS)) > limit and _brackets(data, limit) is None


def _check_structure(data: bytes, max_depth: int, max_marks: int, path: Path | str) -> None:
    """Refuse too many values, and deep nesting before the parser recurses into it; linear in the text's length.

    Each round takes away the innermost pairs of brackets, so a document needs as many rounds as it is deep; brackets
    without a partner stay, and make the parser fail at most that much deeper.
    """
    commas, colons, lists, objects = map(data.count, _MARKS)
    if lists + objects <= max_depth and commas + colons + lists + objects <= max_marks:
        return
    brackets = _brackets(data, max_marks)
    if brackets is None:
        raise InputError("LIMIT", f"more than {max_marks:,} values, keys and lists", path=path)
    for _ in range(max_depth):
        brackets = brackets.replace(b"[]", b"")
    if b"[]" in brackets or brackets.count(b"[") > max_depth:
        raise InputError("JSON", f"nested deeper than {max_depth} levels", path=path)


def _brackets(data: bytes, max_marks: int) -> bytes | None:
    """All brackets outside of strings, as [ and ]; None when there are more marks than so many."""
    count, found = 0, []
    for part in _between_strings(data):
        count += len(part.translate(None, _NO_MARKS))
        if count > max_marks:
            return None
        found.append(part.translate(_ONE_BRACKET, _NO_BRACKETS))
    return b"".join(found)


def _between_strings(data: bytes) -> Iterator[bytes]:
    """What stands outside of strings, some of it at a time; of what is no JSON, up to the first fault at least."""
    if b"\\" in data:  # without escapes every other piece between quotes is a string
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    for part in _PART.finditer(data):
        if part[1] is not None:
            yield b"".join(part[1].split(b'"')[::2])


def _decode(data: bytes, max_text_bytes: int, path: Path | str) -> str:
    width = next((width for width, wide in _WIDTHS if wide.search(data)), 1)
    if len(data) * width > max_text_bytes:
        text_bytes = width * len(data.translate(None, _CONTINUATIONS))
        if text_bytes > max_text_bytes:
            message = f"a text that takes {text_bytes >> 20} MiB of memory, at most {max_text_bytes >> 20} allowed"
            raise InputError("LIMIT", message, path=path, hint="write characters beyond U+FFFF as escapes, \\uXXXX")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("JSON", f"not UTF-8: byte 0x{data[error.start]:02x}", path=path, offset=error.start) from error


def _bytes_before(text: str, stop: int, step: int = 1 << 20) -> int:
    parts = (text[start : min(start + step, stop)] for start in range(0, stop, step))
    return sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)


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
