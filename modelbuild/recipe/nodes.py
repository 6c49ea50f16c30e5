"""A parsed document as a tree of nodes that know their place in the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from modelbuild.errors import Position
from modelbuild.recipe.escapes import offset_of_character
from modelbuild.recipe.scalars import Scalar
from modelbuild.records import record

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


@record
class ScalarNode:
    """A string, number, boolean or null.

    text: what stands in the file, where the field decides whether it is text or a number (plain scalars, results of
    interpolation); None where the file itself decides (quoted and block scalars, JSON).
    inner: how many columns after `position` the first character of the value stands; -1 when the value's characters
    do not follow each other there (several lines, escapes).
    block_indent: the columns before each line of a text that stands line by line in the file: below `position` in a
    literal block (`|`), from the line of `position` on when `inner` says where there; -1 for every other scalar.
    quoted: what stands between the quotes with its escapes, when all of it stands on one line; else empty.
    via: the variables that the value was made with, each with where it got its value.
    """

    value: Scalar
    position: Position
    text: str | None = None
    inner: int = -1
    block_indent: int = -1
    via: tuple[str, ...] = ()
    quoted: str = ""

    def position_of(self, index: int) -> Position:
        """Where a character of the value stands, as exactly as is known."""
        has_lines = self.block_indent >= 0 or self.quoted
        before = str(self.value)[:index] if has_lines else ""
        line = before.count("\n") + 1
        return self.position_in(line, index - (before.rfind("\n") + 1 if before else 0) + 1)

    def position_in(self, line: int, column: int) -> Position:
        """Where a line and column of the value stand (both from 1), as exactly as is known."""
        at = self.position
        if self.quoted:
            lines = str(self.value).split("\n")[: line - 1]
            index = sum(len(text) + 1 for text in lines) + column - 1
            return Position(at.path, at.line, at.column + 1 + offset_of_character(self.quoted, index))
        if self.inner >= 0 and line == 1:
            return Position(at.path, at.line, at.column + self.inner + column - 1)
        if self.block_indent >= 0:
            return Position(at.path, at.line + line - (self.inner >= 0), self.block_indent + column)
        return at


@record
class SequenceNode:
    """A list."""

    items: tuple[Node, ...]
    position: Position


@record
class MappingNode:
    """A mapping with string keys, in text order; `keys` holds the place of each key."""

    entries: dict[str, Node]
    keys: dict[str, Position]
    position: Position

    def get(self, key: str) -> Node | None:
        """The value of a key, or None when it is absent."""
        return self.entries.get(key)

    def without(self, *dropped: str) -> MappingNode:
        """The same mapping without some keys."""
        if not any(key in self.entries for key in dropped):
            return self
        entries = {key: value for key, value in self.entries.items() if key not in dropped}
        return MappingNode(entries, {key: self.keys[key] for key in entries}, self.position)

    def having(self, key: str, value: Node, position: Position) -> MappingNode:
        """The same mapping with one key set."""
        return MappingNode({**self.entries, key: value}, {**self.keys, key: position}, self.position)


Node = ScalarNode | SequenceNode | MappingNode


def to_plain(node: Node) -> Plain:
    """The tree as ordinary lists, dictionaries and scalars."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode):
        return [to_plain(item) for item in node.items]
    return {key: to_plain(value) for key, value in node.entries.items()}


def is_null(node: Node | None) -> bool:
    """Is this a null that stands in the file?"""
    return isinstance(node, ScalarNode) and node.value is None


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below a list or mapping."""
    if isinstance(node, SequenceNode):
        yield from node.items
    elif isinstance(node, MappingNode):
        yield from node.entries.values()


def walk_scalars(node: Node) -> Iterator[ScalarNode]:
    """All scalars below a node, in text order."""
    if isinstance(node, ScalarNode):
        yield node
    else:
        for child in children(node):
            yield from walk_scalars(child)


def places_in(node: Node) -> Iterator[Position]:
    """The places of a node, of everything below it, and of all keys."""
    yield node.position
    if isinstance(node, MappingNode):
        yield from node.keys.values()
    for child in children(node):
        yield from places_in(child)


def with_loud_nulls(node: Node) -> Node:
    """The tree with every null as YAML says it: in a recipe it drops something, in a create request it says nothing."""
    if isinstance(node, ScalarNode):
        return replace(node, text="null") if node.value is None else node
    if isinstance(node, SequenceNode):
        return SequenceNode(tuple(map(with_loud_nulls, node.items)), node.position)
    entries = {key: with_loud_nulls(value) for key, value in node.entries.items()}
    return MappingNode(entries, node.keys, node.position)
