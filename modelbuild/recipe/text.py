"""Recipe text to nodes: YAML 1.2 (and so JSON) through PyYAML's event stream, within budgets.

Only events are used: the C composer crashes the process on deep nesting, and the Python one builds objects before
anything can be counted. Everything hostile is stopped while it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from modelbuild.errors import Position, RecipeError, printable
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode

#: Budgets of a document; a recipe of a thousand models stays far below each of them.
TEXT_LIMIT_BYTES = 1 << 20
DEPTH_LIMIT = 64
NODE_LIMIT = 100_000
ALIAS_LIMIT = 1_000
#: Aliases may repeat a subtree; this bounds what the document stands for in all.
EXPANDED_NODE_LIMIT = 200_000

MERGE_KEY = "<<"

# YAML 1.2 core schema; `no`, `1:30` and `2026-01-01` are strings.
_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,20}", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]{1,20}", re.ASCII)
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,16}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,5})?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def parse_recipe_text(data: bytes, path: str) -> Node:
    """The root node of a YAML or JSON document; RecipeError YAML or LIMIT with a position otherwise.

    data: UTF-8, or UTF-16 with a byte order mark; at most TEXT_LIMIT_BYTES.
    """
    if len(data) > TEXT_LIMIT_BYTES:
        raise RecipeError("LIMIT", f"{len(data):,} bytes, at most {TEXT_LIMIT_BYTES:,} allowed", Position(path, 1, 1))
    builder = _Builder(path)
    try:
        for event in yaml.parse(_decode(data, path), Loader=yaml.CSafeLoader):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _syntax_error(error, path) from error
    return builder.finish()


def _decode(data: bytes, path: str) -> str:
    encoding = "utf-16" if data.startswith(_UTF16_MARKS) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        message = f"not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise RecipeError("YAML", message, Position(path, line, column), hint="save the file as UTF-8") from error


def _syntax_error(error: yaml.YAMLError, path: str) -> RecipeError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = Position(path, mark.line + 1, mark.column + 1) if mark else Position(path, 1, 1)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    context = getattr(error, "context", None)
    return RecipeError("YAML", f"not valid YAML: {problem}" + (f" {context}" if context else ""), position)


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is still being read."""

    position: Position
    is_mapping: bool
    anchor: str | None
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Position] = field(default_factory=dict)
    merges: list[Node] = field(default_factory=list)
    key: str | None = None
    key_position: Position | None = None
    weight: int = 1


class _Builder:
    """Turns events into nodes without recursion, charging every budget as it goes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._documents = 0
        self._nodes = 0
        self._aliases = 0
        self._expanded = 0
        self._root: Node | None = None

    def take(self, event: yaml.Event) -> None:
        """Use the next event."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._error("YAML", "a second document; one per file is allowed", self._at(event))
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event)
            self._count(self._at(event))
            self._add(ScalarNode(self._scalar_value(event), self._at(event)), event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()

    def finish(self) -> Node:
        """The root node."""
        if self._root is None:
            raise self._error("YAML", "the file is empty", Position(self._path, 1, 1))
        return self._root

    def _open(self, event: yaml.CollectionStartEvent) -> None:
        position = self._at(event)
        self._check_tag(event)
        self._count(position)
        if len(self._frames) >= DEPTH_LIMIT:
            raise self._error("LIMIT", f"nested deeper than {DEPTH_LIMIT} levels", position)
        self._frames.append(_Frame(position, isinstance(event, yaml.MappingStartEvent), event.anchor))

    def _close(self) -> None:
        frame = self._frames.pop()
        node: Node
        if frame.is_mapping:
            node = MappingNode(*self._merged(frame), frame.position)
        else:
            node = SequenceNode(tuple(frame.items), frame.position)
        self._add(node, frame.anchor, frame.weight)

    def _take_alias(self, event: yaml.AliasEvent) -> None:
        position = self._at(event)
        self._aliases += 1
        if self._aliases > ALIAS_LIMIT:
            raise self._error("LIMIT", f"more than {ALIAS_LIMIT} aliases", position)
        if event.anchor not in self._anchors:
            is_open = any(frame.anchor == event.anchor for frame in self._frames)
            what = "refers to a value that contains it" if is_open else "has no anchor before it"
            raise self._error("YAML", f"the alias *{printable(str(event.anchor))} {what}", position)
        node, weight = self._anchors[event.anchor]
        self._expanded += weight
        if self._expanded > EXPANDED_NODE_LIMIT:
            raise self._error("LIMIT", f"aliases expand to more than {EXPANDED_NODE_LIMIT:,} values", position)
        self._add(node, None, weight, position)

    def _add(self, node: Node, anchor: str | None, weight: int, position: Position | None = None) -> None:
        if anchor is not None:
            self._anchors[anchor] = (node, weight)
        if not self._frames:
            self._root = node
            return
        frame = self._frames[-1]
        frame.weight += weight
        if not frame.is_mapping:
            frame.items.append(node)
        elif frame.key is None:
            self._take_key(frame, node, position or node.position)
        else:
            self._take_value(frame, node)

    def _take_key(self, frame: _Frame, node: Node, position: Position) -> None:
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
            raise self._error("YAML", "a key must be text", position, hint="put it in quotes")
        if node.value in frame.keys:
            first = frame.keys[node.value]
            message = f"the key {printable(node.value)!r} stands here and at line {first.line}, column {first.column}"
            raise self._error("DUPLICATE", message, position, hint="remove one of them")
        frame.key, frame.key_position = node.value, position

    def _take_value(self, frame: _Frame, node: Node) -> None:
        key, position = frame.key, frame.key_position
        frame.key = frame.key_position = None
        if key is None or position is None:
            raise AssertionError("a value without a key")
        if key == MERGE_KEY:
            frame.merges.append(node)
            return
        frame.entries[key] = node
        frame.keys[key] = position

    def _merged(self, frame: _Frame) -> tuple[dict[str, Node], dict[str, Position]]:
        """The mapping's own entries, then those it merges with `<<` and does not have itself."""
        entries, keys = frame.entries, frame.keys
        for source in self._merge_sources(frame.merges):
            for key, value in source.entries.items():
                if key not in entries:
                    entries[key], keys[key] = value, source.keys[key]
        return entries, keys

    def _merge_sources(self, merges: list[Node]) -> Iterator[MappingNode]:
        for node in merges:
            for item in node.items if isinstance(node, SequenceNode) else (node,):
                if not isinstance(item, MappingNode):
                    raise self._error("YAML", "'<<' takes a mapping or a list of mappings", item.position)
                yield item

    def _scalar_value(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text: str = event.value
        if not event.implicit[0]:  # quoted, or a block: always text
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _NOT_FINITE.fullmatch(text):
            raise self._error("YAML", f"{text} is not a usable number", self._at(event), hint="quote it if it is text")
        return _number(text)

    def _check_tag(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            raise self._error("YAML", f"the tag {printable(tag)!r} is not allowed", self._at(event), hint="remove it")

    def _count(self, position: Position) -> None:
        self._nodes += 1
        self._expanded += 1
        if self._nodes > NODE_LIMIT:
            raise self._error("LIMIT", f"more than {NODE_LIMIT:,} values", position)

    def _at(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        return Position(self._path, mark.line + 1, mark.column + 1) if mark else Position(self._path, 1, 1)

    def _error(self, code: str, message: str, position: Position, hint: str = "") -> RecipeError:
        return RecipeError(code, message, position, hint=hint)


def _number(text: str) -> str | int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else text
    return text
