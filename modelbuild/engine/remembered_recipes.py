"""Recipes that an earlier build read: the same bytes are the same nodes, so YAML is read once for each edit.

Most edits are of something else: a prompt in a file of its own, a template, weights. Loading the reader of YAML alone
takes as long as a fifth of such a build.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from modelbuild import __version__
from modelbuild.recipe.documents import parse_recipe
from modelbuild.recipe.node_form import FORM_VERSION, decode_nodes, encode_nodes
from modelbuild.recipe.nodes import Node
from modelbuild.store.state import State

#: What is longer is read again: a recipe whose aliases repeat much is short itself.
_KEPT_CHARACTERS = 4 << 20


class RememberedRecipes:
    """Reads recipes, each content once."""

    def __init__(self, state: State) -> None:
        self._state = state

    def parse(self, data: bytes, path: Path) -> Node:
        """The nodes of a recipe in YAML or JSON, remembered under its path; the errors are the reader's."""
        key = f"recipe {path.absolute()}"
        content = blake3(json.dumps([FORM_VERSION, __version__]).encode() + data).hexdigest()
        known = self._state.snapshot(key)
        if known is not None and known.startswith(content):
            with suppress(ValueError):  # not a text of ours
                return decode_nodes(known[len(content) :], str(path))
        root = parse_recipe(data, path)
        text = encode_nodes(root)
        if len(text) <= _KEPT_CHARACTERS:
            self._state.record_snapshot(key, content + text)
        return root
