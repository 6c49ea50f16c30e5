"""Plain data as YAML that reads well and reads back the same, for recipes that we write."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.scalars import is_not_finite, read_plain

_INDENT = "  "
#: Characters that YAML text may not hold as they are, or that end a line in it.
_UNWRITABLE = late_pattern(r"[^\n\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
#: Characters that change how a terminal shows the rest of a line are written as escapes.
_BIDIRECTIONAL = late_pattern("[\u202a-\u202e\u2066-\u2069]")
_PLAIN = late_pattern(r"[A-Za-z_./<(\u00a1-\u2027\u2030-\ud7ff]([^\n\t#:,{}\[\]\"'`&*!|>%@\\?=]|:(?=[A-Za-z0-9_./]))*")
_PLAIN_KEY = late_pattern(r"[A-Za-z_.][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*", re.ASCII)
_FLOW_WIDTH = 100


def to_yaml(value: Mapping[str, object]) -> str:
    """The mapping as a YAML document; keys keep their order."""
    return "".join(f"{line}\n" for line in _mapping_lines(value))


def _mapping_lines(value: Mapping[str, object]) -> Iterator[str]:
    for key, item in value.items():
        yield from _entry_lines(f"{_key(key)}:", item)


def _entry_lines(head: str, item: object) -> Iterator[str]:
    """`head` followed by a value, on one line where that reads well."""
    if isinstance(item, str) and _is_block(item):
        yield f"{head} {_block_header(item)}"
        yield from (f"{_INDENT}{line}" if line else "" for line in _block_lines(item))
    elif isinstance(item, Mapping) and item:
        yield head
        yield from (f"{_INDENT}{line}" if line else "" for line in _mapping_lines(item))
    elif isinstance(item, Sequence) and not isinstance(item, str | bytes) and item and not _fits(item):
        yield head
        yield from (f"{_INDENT}{line}" if line else "" for line in _sequence_lines(item))
    else:
        yield f"{head} {_flow(item)}"


def _sequence_lines(items: Sequence[object]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Mapping) and item:
            for number, line in enumerate(_mapping_lines(item)):
                yield f"- {line}" if not number else (f"{_INDENT}{line}" if line else "")
        else:
            yield from _entry_lines("-", item)


def _fits(items: Sequence[object]) -> bool:
    """May the list stand on one line? Short lists of scalars do."""
    are_scalars = all(isinstance(item, str | int | float | None) and not _is_block(item) for item in items)
    return are_scalars and len(_flow(items)) <= _FLOW_WIDTH


def _flow(item: object) -> str:
    """A value on one line."""
    if isinstance(item, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_flow(value)}" for key, value in item.items()) + "}"
    if isinstance(item, str):
        return _scalar(item)
    if isinstance(item, Sequence) and not isinstance(item, bytes):
        return "[" + ", ".join(map(_flow, item)) + "]"
    if item is None:
        return "null"
    if isinstance(item, bool):
        return "true" if item else "false"
    return repr(item)


def _scalar(text: str) -> str:
    is_plain = _PLAIN.fullmatch(text) is not None and text == text.strip() and not _needs_escape(text)
    if is_plain and read_plain(text) == text and not is_not_finite(text) and "${" not in text:
        return text
    return _quoted(text)


def _key(text: str) -> str:
    is_plain = _PLAIN_KEY.fullmatch(text) is not None and read_plain(text) == text and not is_not_finite(text)
    return text if is_plain else _quoted(text)


def _quoted(text: str) -> str:
    named = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(named.get(char) or (_escape(char) if _needs_escape(char) else char) for char in text) + '"'


def _needs_escape(text: str) -> bool:
    return _UNWRITABLE.search(text) is not None or _BIDIRECTIONAL.search(text) is not None


def _escape(char: str) -> str:
    point = ord(char)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


# -- literal blocks ----------------------------------------------------------------------------------------------


def _is_block(item: object) -> bool:
    """Is this a text of several lines that a literal block shows as it is?"""
    if not isinstance(item, str) or "\n" not in item.rstrip("\n"):
        return False
    lines = item.split("\n")
    is_clean = not _needs_escape(item) and "\t" not in item[:1]
    # A first line that is blank or indented would need an indentation indicator; quotes read better then.
    return is_clean and lines[0].strip() != "" and not lines[0].startswith(" ") and "${" not in item


def _block_header(text: str) -> str:
    if not text.endswith("\n"):
        return "|-"
    return "|+" if text.endswith("\n\n") else "|"


def _block_lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if text.endswith("\n") else lines
