"""Nodes as a text to keep, and back: what a recipe says, without reading YAML again.

The text is JSON: a scalar is a list that begins with its value, a list or mapping an object; the path is left out.
"""

from __future__ import annotations

import json
from typing import Any

from modelbuild.errors import Position
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode

#: Raised when the form, or what reading a recipe's text gives, changes.
FORM_VERSION = 1


def encode_nodes(root: Node) -> str:
    """The text of a tree as the reader of a recipe gives it, before anything was interpolated."""
    return json.dumps(_encoded(root), separators=(",", ":"))


def decode_nodes(text: str, path: str) -> Node:
    """The tree of a text, as if it had just been read from the file at `path`; ValueError for another text."""
    try:
        return _decoded(json.loads(text), path)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("no text of nodes") from error


def _encoded(node: Node) -> object:
    at = [node.position.line, node.position.column]
    if isinstance(node, ScalarNode):
        return [node.value, *at, node.text, node.inner, node.block_indent, node.quoted]
    if isinstance(node, SequenceNode):
        return {"at": at, "items": [_encoded(item) for item in node.items]}
    keys = [[node.keys[key].line, node.keys[key].column] for key in node.entries]
    return {"at": at, "keys": keys, "entries": {key: _encoded(value) for key, value in node.entries.items()}}


def _decoded(found: Any, path: str) -> Node:
    if isinstance(found, list):
        value, line, column, text, inner, block_indent, quoted = found
        return ScalarNode(value, Position(path, line, column), text, inner, block_indent, (), quoted)
    position = Position(path, *found["at"])
    if "items" in found:
        return SequenceNode(tuple([_decoded(item, path) for item in found["items"]]), position)
    entries = {key: _decoded(value, path) for key, value in found["entries"].items()}
    keys = {key: Position(path, *at) for key, at in zip(entries, found["keys"], strict=True)}
    return MappingNode(entries, keys, position)
