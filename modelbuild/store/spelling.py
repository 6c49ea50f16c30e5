"""How names are spelt: Ollama matches them without regard to case and keeps the spelling that exists.

Each of the four parts is matched on its own, so a new `new:LATEST` becomes `new:latest` as soon as any model has the
tag `latest`. Where several spellings exist Ollama takes a random one; here an exact match wins, then the last in order.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.model_name import ModelName


class Spellings:
    """The spellings of name parts in use."""

    def __init__(self, names: Iterable[ModelName]) -> None:
        self._parts: tuple[dict[str, set[str]], ...] = ({}, {}, {}, {})
        for name in names:
            self.add(name)

    def add(self, name: ModelName) -> None:
        """Take note of a name that exists, or will exist, in this spelling."""
        for known, part in zip(self._parts, _parts(name), strict=True):
            known.setdefault(part.lower(), set()).add(part)

    def of(self, name: ModelName) -> ModelName:
        """The name with each part spelt as it is known."""
        spelt = [_spelt(part, known) for known, part in zip(self._parts, _parts(name), strict=True)]
        return ModelName(*spelt)


def _parts(name: ModelName) -> tuple[str, str, str, str]:
    return name.host, name.namespace, name.model, name.tag


def _spelt(part: str, known: dict[str, set[str]]) -> str:
    spellings = known.get(part.lower(), {part})
    return part if part in spellings else max(spellings)
