"""What was found out about a path: facts, the files that a build would make of it, and everything wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from modelbuild.errors import ModelbuildError
from modelbuild.recipe.report import findings_of
from modelbuild.records import record

#: Raised when a field changes its meaning or goes away.
INSPECTION_VERSION = 1

Fact = str | int | float | bool | Sequence[str] | Mapping[str, int]


@record
class PlannedFile:
    """A file that a build would make or take over.

    layer: the kind of layer it becomes. quantize: what the recipe says, "" for nothing. size_bytes: exact.
    """

    layer: str
    title: str
    quantize: str
    size_bytes: int


@record
class Inspection:
    """kind: in words. facts: by name, in the order of showing; sizes in bytes have names that end in `_bytes`.

    use: what to write in a recipe. files: what a build would make. notes: remarks. problems: what would end a build.
    """

    path: Path
    kind: str
    facts: Mapping[str, Fact]
    use: str = ""
    files: Sequence[PlannedFile] = ()
    notes: Sequence[str] = ()
    problems: Sequence[ModelbuildError] = field(default_factory=tuple)

    def to_json(self) -> dict[str, object]:
        """The inspection as a JSON object."""
        return {
            "version": INSPECTION_VERSION,
            "path": str(self.path),
            "kind": self.kind,
            "facts": {name: _plain(value) for name, value in self.facts.items()},
            "use": self.use,
            "files": [
                {"layer": item.layer, "action": item.title, "quantize": item.quantize, "size_bytes": item.size_bytes}
                for item in self.files
            ],
            "notes": list(self.notes),
            "problems": [
                {"code": item.code, "message": item.message, "hint": item.hint} for item in findings_of(*self.problems)
            ],
        }


def _plain(value: Fact) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return value if isinstance(value, str | int | float) else list(value)
