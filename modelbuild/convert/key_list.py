"""Metadata keys in order; a key that is set again keeps its place and takes the new value."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.formats.gguf.writer import KeyValue


class KeyList:
    """What the reference's writer does: classes refine keys that more general code has written before."""

    def __init__(self) -> None:
        self._items: dict[str, KeyValue] = {}

    def add(self, items: Iterable[KeyValue]) -> None:
        """Append or replace."""
        for item in items:
            self._items[item.key] = item

    def finish(self) -> tuple[KeyValue, ...]:
        """All of them."""
        return tuple(self._items.values())
