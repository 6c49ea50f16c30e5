"""JSON text to nodes with positions, strictly; what is not JSON is left to the YAML reader.

YAML is nearly a superset of JSON, but not for surrogate pairs, raw DEL characters or long keys, and create requests
have them. JSON says itself what is text and what a number, so the field decides nothing here.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from dataclasses import field

from modelbuild.errors import Position, RecipeError, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode
from modelbuild.recipe.scalars import Scalar
from modelbuild.records import record

#: Python converts long digit strings in quadratic time; no field needs more.
_DIGIT_LIMIT = 400
# The empty alternative: see recipe/go_scan.py.
_TOKEN = late_pattern(
    r"[ \t\r\n]*(?:(?P<string>\"(?:[^\"\\\x00-\x1f]|\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4})|)*+\")"
    r"|(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)"
    r"|(?P<word>true|false|null)|(?P<mark>[{}\[\]:,]))"
)
_BLANKS = late_pattern(r"[ \t\r\n]*")
_BLANK = (" ", "\t", "\r", "\n")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}


def read_json_nodes(text: str, path: str, *, max_depth: int, max_nodes: int) -> Node | None:
    """The root node of a JSON document, or None when the text is not JSON.

    RecipeError: LIMIT for too many levels or values, YAML for a repeated key or half a surrogate pair.
    """
    return _Reader(text, path, max_depth, max_nodes).read()


class _NotJsonError(Exception):
    """The text is something else."""


@record(frozen=False)
class _Open:
    """A container that is still being read."""

    position: Position
    is_mapping: bool
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Position] = field(default_factory=dict)
    key: str = ""


class _Reader:
    """One pass over the tokens, without recursion."""

    def __init__(self, text: str, path: str, max_depth: int, max_nodes: int) -> None:
        self._text = text
        self._path = path
        self._max_depth = max_depth
        self._nodes_left = max_nodes
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._at = 0
        self._open: list[_Open] = []

    def read(self) -> Node | None:
        try:
            root = self._document()
        except _NotJsonError:
            return None
        return root if _BLANKS.fullmatch(self._text, self._at) else None

    def _document(self) -> Node:
        while True:
            node = self._value()
            while node is not None:
                if not self._open:
                    return node
                node = self._put(node)

    def _value(self) -> Node | None:
        """A scalar or an empty container; None when a container was opened and its first value follows."""
        kind, found, position = self._next()
        if kind != "mark":
            return self._scalar(kind, found, position)
        if found not in "{[":
            raise _NotJsonError
        if len(self._open) >= self._max_depth:
            raise RecipeError("LIMIT", f"nested deeper than {self._max_depth} levels", position)
        self._count(position)
        container = _Open(position, found == "{")
        self._open.append(container)
        if self._skip("}" if container.is_mapping else "]"):
            return self._close()
        if container.is_mapping:
            self._read_key(container)
        return None

    def _put(self, node: Node) -> Node | None:
        """Put a value into the innermost container; that container when it ends here."""
        container = self._open[-1]
        if container.is_mapping:
            container.entries[container.key] = node
        else:
            container.items.append(node)
        if self._skip(","):
            if container.is_mapping:
                self._read_key(container)
            return None
        if not self._skip("}" if container.is_mapping else "]"):
            raise _NotJsonError
        return self._close()

    def _close(self) -> Node:
        container = self._open.pop()
        if container.is_mapping:
            return MappingNode(container.entries, container.keys, container.position)
        return SequenceNode(tuple(container.items), container.position)

    def _read_key(self, container: _Open) -> None:
        kind, found, position = self._next()
        if kind != "string" or not self._skip(":"):
            raise _NotJsonError
        key = self._string(found, position)
        if key in container.keys:
            first = container.keys[key]
            message = f"the key {printable(key)!r} stands here and at line {first.line}, column {first.column}"
            raise RecipeError("YAML", message, position, hint="remove one of them")
        container.key = key
        container.keys[key] = position

    def _scalar(self, kind: str, found: str, position: Position) -> ScalarNode:
        self._count(position)
        if kind == "string":
            value = self._string(found, position)
            if len(found) == len(value) + 2:
                return ScalarNode(value, position, None, 1)
            return ScalarNode(value, position, None, quoted=found[1:-1])
        return ScalarNode(_WORDS[found] if kind == "word" else self._number(found, position), position)

    def _string(self, found: str, position: Position) -> str:
        value = found[1:-1] if "\\" not in found else str(json.loads(found))
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise RecipeError("YAML", "half of a surrogate pair is no character", position, hint="write both halves")
        return value

    def _number(self, found: str, position: Position) -> int | float:
        if len(found) > _DIGIT_LIMIT:
            raise RecipeError("LIMIT", f"a number of {len(found)} digits, at most {_DIGIT_LIMIT} allowed", position)
        value = float(found)
        if not math.isfinite(value):
            raise RecipeError("YAML", f"{found} is larger than any number that can be stored", position)
        return int(found) if re.fullmatch("-?[0-9]{1,20}", found, re.ASCII) and found != "-0" else value

    def _next(self) -> tuple[str, str, Position]:
        match = _TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            raise _NotJsonError
        self._at = match.end()
        start = match.start(match.lastgroup)
        line = bisect_right(self._line_starts, start)
        position = Position(self._path, line, start - self._line_starts[line - 1] + 1)
        return match.lastgroup, match[match.lastgroup], position

    def _skip(self, mark: str) -> bool:
        """Step over a punctuation mark if it comes next."""
        start = self._at
        if self._text[start : start + 1] in _BLANK:
            match = _BLANKS.match(self._text, start)
            start = start if match is None else match.end()
        if not self._text.startswith(mark, start):
            return False
        self._at = start + 1
        return True

    def _count(self, position: Position) -> None:
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise RecipeError("LIMIT", "too many values", position)
