"""A parsed document as a tree of nodes that know their place in the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelbuild.errors import Position

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A string, number, boolean or null."""

    value: str | int | float | bool | None
    position: Position


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list."""

    items: tuple[Node, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A mapping with string keys, in text order; `keys` holds the place of each key."""

    entries: dict[str, Node]
    keys: dict[str, Position]
    position: Position

    def get(self, key: str) -> Node | None:
        """The value of a key, or None when it is absent."""
        return self.entries.get(key)


Node = ScalarNode | SequenceNode | MappingNode


def to_plain(node: Node) -> Plain:
    """The tree as ordinary lists, dictionaries and scalars."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SequenceNode):
        return [to_plain(item) for item in node.items]
    return {key: to_plain(value) for key, value in node.entries.items()}


def node_at(node: Node, path: Sequence[str | int]) -> Node:
    """The node at a path of keys and indexes that is known to exist."""
    for step in path:
        if isinstance(node, MappingNode):
            node = node.entries[str(step)]
        elif isinstance(node, SequenceNode):
            node = node.items[int(step)]
    return node


def walk_scalars(node: Node) -> Iterator[ScalarNode]:
    """All scalars below a node, in text order."""
    if isinstance(node, ScalarNode):
        yield node
    else:
        for child in node.items if isinstance(node, SequenceNode) else node.entries.values():
            yield from walk_scalars(child)
