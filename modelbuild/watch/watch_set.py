"""What a recipe depends on: files whose content counts and directories whose listing counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WatchSet:
    """files: inputs, absolute; directories: those whose entries decide something; ignored: our own output."""

    files: frozenset[Path]
    directories: frozenset[Path]
    ignored: tuple[Path, ...] = ()

    @classmethod
    def of(cls, files: Iterable[Path], directories: Iterable[Path], ignored: Iterable[Path]) -> WatchSet:
        """The set for these paths; a symbolic link counts as itself and as what it leads to."""
        named = {path.absolute() for path in files}
        real = {path.resolve() for path in named}
        listed = {path.absolute() for path in directories}
        return cls(
            frozenset(named | real),
            frozenset(listed | {path.resolve() for path in listed}),
            tuple(path.resolve() for path in ignored),
        )

    @property
    def watched(self) -> frozenset[Path]:
        """The directories to listen to: parents of all files, and those that are listed; only ones that exist."""
        parents = {path.parent for path in self.files} | set(self.directories)
        return frozenset(_existing(path) for path in parents)

    def concerns(self, path: Path) -> bool:
        """Does something at this path matter? A parent that moves away or comes back does."""
        if any(path.is_relative_to(own) for own in self.ignored):
            return False
        return (
            path in self.files
            or path in self.directories
            or path.parent in self.directories
            or any(file.is_relative_to(path) for file in self.files)
        )


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists: there it will appear."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path
