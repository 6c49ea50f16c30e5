"""Recipe text to nodes: YAML 1.2 through PyYAML's event stream, within budgets; JSON in its own strict way.

Only events are used: the C composer crashes the process on deep nesting, and the Python one builds objects before
anything can be counted. Everything hostile is stopped while it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Protocol

import yaml

from modelbuild.errors import Position, RecipeError, printable
from modelbuild.formats.json_text import has_more_marks
from modelbuild.formats.signatures import SIGNATURE_BYTES, describe_format
from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode
from modelbuild.recipe.scalars import is_not_finite, read_plain
from modelbuild.recipe.text_kind import (
    JSON_LIMIT_BYTES,
    MODELFILE_HINT,
    TEXT_LIMIT_BYTES,
    begins_with_command,
    looks_like_json,
)
from modelbuild.records import record

#: Budgets of a document beside its length; a recipe of a thousand models stays far below each of them.
DEPTH_LIMIT = 64
NODE_LIMIT = 100_000
ALIAS_LIMIT = 1_000
#: Aliases may repeat a subtree; this bounds what the document stands for in all.
EXPANDED_NODE_LIMIT = 200_000


class _Mark(Protocol):
    """A place as PyYAML gives it, counted from 0."""

    line: int
    column: int


_ONE = "several models stand in one document, below 'models:'"
MERGE_KEY = "<<"
_LINE_BREAK = late_pattern(r"\r\n|[\n\r\x85\u2028\u2029]")

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
#: libyaml's words for mistakes that people make, and what to do about them.
_HINTS = (
    ("found character that cannot start any token", "quote text that starts with @, ` or %"),
    ("mapping values are not allowed", "quote text that holds ': ', write ': ' behind keys, check the indentation"),
    ("did not find expected ',' or", "close the bracket; text with {, }, [, ] or , needs quotes here, so does ${name}"),
    ("did not find expected key", "check the indentation of this line and of the one before"),
    ("could not find expected ':'", "a key needs ': ' after it"),
    ("found unexpected end of stream", "close the quote"),
    ("control characters are not allowed", "remove the character, or write it as \\x.. inside double quotes"),
    ("found a tab character", "indent with spaces"),
    ("found unknown escape character", "use single quotes when backslashes are meant"),
)


def parse_recipe_text(data: bytes, path: str) -> Node:
    """The root node of a YAML or JSON document; RecipeError YAML or LIMIT with a position otherwise.

    data: UTF-8; at most TEXT_LIMIT_BYTES, JSON_LIMIT_BYTES when it is JSON.
    """
    if len(data) > (JSON_LIMIT_BYTES if looks_like_json(data) else TEXT_LIMIT_BYTES):
        raise too_large(path, len(data))
    text = decode_text(data, path)
    if looks_like_json(data):
        from modelbuild.recipe.json_nodes import read_json_nodes

        if len(data) > TEXT_LIMIT_BYTES and has_more_marks(data, 3 * NODE_LIMIT):  # each value has at most three
            raise RecipeError("LIMIT", "too many values", Position(path, 1, 1))
        root = read_json_nodes(text, path, max_depth=DEPTH_LIMIT, max_nodes=NODE_LIMIT)
        if root is not None:
            return root
        if len(data) > TEXT_LIMIT_BYTES:
            raise too_large(path, len(data))
    builder = _Builder(path, text)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            builder.take(event)
    except yaml.YAMLError as error:
        raise _syntax_error(error, path, text) from error
    return builder.finish()


_TOO_LARGE_HINT = "is this a recipe? 'modelbuild init DIRECTORY' writes one for a checkpoint"


def too_large(path: str, size_bytes: int) -> RecipeError:
    """The error for a recipe that is larger than any recipe is."""
    message = f"{size_bytes:,} bytes, at most {TEXT_LIMIT_BYTES:,} allowed"
    return RecipeError("LIMIT", message, Position(path, 1, 1), hint=_TOO_LARGE_HINT)


def decode_text(data: bytes, path: str) -> str:
    """The characters of a text file in UTF-8, with or without a byte order mark; RecipeError YAML otherwise."""
    if data.startswith(_UTF16_MARKS):
        # Version control shows such a file as binary, and the texts that a recipe names are UTF-8 as well.
        hint = "save the file as UTF-8; PowerShell does with '| Out-File -Encoding utf8 NAME' instead of '> NAME'"
        raise RecipeError("YAML", "a text in UTF-16, UTF-8 is expected", Position(path, 1, 1), hint=hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8-sig", "replace")) + 1
        message = f"not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}"
        hint = "save the file as UTF-8"
        what, _ = describe_format(data[:SIGNATURE_BYTES])
        if what:
            line, column, message = 1, 1, f"{what}; a recipe or a Modelfile is expected"
            hint = f"'modelbuild init {printable(path)}' writes a recipe for weights"
        raise RecipeError("YAML", message, Position(path, line, column), hint=hint) from error


def _syntax_error(error: yaml.YAMLError, path: str, text: str) -> RecipeError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    context = getattr(error, "context", None)
    position = Position(path, mark.line + 1, mark.column + 1) if mark else _position_of_character(error, path, text)
    hint = next((hint for words, hint in _HINTS if words in problem), "")
    if _character_at(position, text) == "\t":
        hint = "a tab stands here: indent with spaces"
    elif begins_with_command(text.encode("utf-8", "replace")):
        hint = MODELFILE_HINT
    return RecipeError("YAML", f"not valid YAML: {problem}" + (f" {context}" if context else ""), position, hint=hint)


def _character_at(position: Position, text: str) -> str:
    lines = _LINE_BREAK.split(text)
    return lines[position.line - 1][position.column - 1 : position.column] if position.line <= len(lines) else ""


def _position_of_character(error: yaml.YAMLError, path: str, text: str) -> Position:
    """Where the reader met a character that YAML does not allow; libyaml gives only its UTF-8 offset."""
    offset = getattr(error, "position", None)
    if not isinstance(offset, int):
        return Position(path, 1, 1)
    before = text.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "replace")
    return Position(path, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


@record(frozen=False)
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

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text
        self._lines: list[str] = []
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
                raise self._error("YAML", "a second document; one per file is allowed", self._at(event), _ONE)
        elif isinstance(event, yaml.AliasEvent):
            self._take_alias(event)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event)
            self._add(self._scalar(event), event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()

    def finish(self) -> Node:
        """The root node."""
        if self._root is None:
            raise self._error(
                "YAML", "the file is empty", Position(self._path, 1, 1), "begin with 'model: NAME' and 'from: …'"
            )
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
            hint = "an alias repeats a value that is marked with &NAME further up"
            raise self._error("YAML", f"the alias *{printable(str(event.anchor))} {what}", position, hint)
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
            raise self._error("YAML", message, position, hint="remove one of them")
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
                    hint = "for example '<<: *common' where '&common' marks a mapping"
                    raise self._error("YAML", "'<<' takes a mapping or a list of mappings", item.position, hint)
                yield item

    def _scalar(self, event: yaml.ScalarEvent) -> ScalarNode:
        position, text = self._at(event), event.value
        self._count(position)
        end = event.end_mark
        if end is None:
            raise AssertionError("the reader marks where scalars end")
        width = end.column + 1 - position.column if end.line + 1 == position.line else -1
        if event.implicit[0]:  # plain: the field decides what it is
            if is_not_finite(text):
                raise self._error("YAML", f"{text} is not a usable number", position, hint="quote it if it is text")
            return ScalarNode(read_plain(text), position, text, 0 if width == len(text) else -1)
        if event.style == "|":
            return ScalarNode(text, position, None, -1, self._block_indent(position.line, end.line))
        if event.style == '"' and width > len(text) + 2:
            start = position.column
            return ScalarNode(text, position, None, quoted=self._line(position.line - 1)[start : start + width - 2])
        return ScalarNode(text, position, None, 1 if width == len(text) + 2 else -1)

    def _block_indent(self, first: int, end: int) -> int:
        """The indentation of a block's first line that is not blank; lines count from 0."""
        for index in range(first, end):
            line = self._line(index)
            if line.strip(" "):
                return len(line) - len(line.lstrip(" "))
        return -1

    def _line(self, index: int) -> str:
        """A line of the file, counted from 0; empty behind the last."""
        if not self._lines:
            self._lines = _LINE_BREAK.split(self._text)
        return self._lines[index] if index < len(self._lines) else ""

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
        return self._place(event.start_mark)

    def _place(self, mark: _Mark | None) -> Position:
        return Position(self._path, mark.line + 1, mark.column + 1) if mark else Position(self._path, 1, 1)

    def _error(self, code: str, message: str, position: Position, hint: str = "") -> RecipeError:
        return RecipeError(code, message, position, hint=hint)
