"""What a recipe depends on: files whose content counts and directories whose listing counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from modelbuild.records import record

#: As many links may lead to each other as the kernel follows; a circle would never end.
_MOST_LINKS = 40


@record
class WatchSet:
    """files: inputs, absolute; directories: those whose entries decide something; ignored: our own output.

    above: every directory on the way to one of these. within: the directory below which the ways are watched too, not
    only their ends: what is moved there takes inputs along, and the inputs' own directories are not told of it.
    """

    files: frozenset[Path]
    directories: frozenset[Path]
    ignored: tuple[Path, ...] = ()
    above: frozenset[Path] = frozenset()
    within: Path | None = None

    @classmethod
    def of(
        cls, files: Iterable[Path], directories: Iterable[Path], ignored: Iterable[Path], within: Path | None = None
    ) -> WatchSet:
        """The set for these paths; a symbolic link counts as itself and as all that it leads over and to."""
        named, listed = _with_links(files), _with_links(directories)
        return cls(
            named,
            listed,
            tuple(path.resolve() for path in ignored),
            frozenset(parent for path in named | listed for parent in path.parents),
            None if within is None else within.resolve(),
        )

    @property
    def watched(self) -> frozenset[Path]:
        """The directories to listen to: parents of all files, those that are listed, ways; only ones that exist."""
        wanted = {path.parent for path in self.files} | self.directories
        wanted |= {path for path in self.above if self.within is not None and path.is_relative_to(self.within)}
        return frozenset(_existing(path) for path in wanted)

    def concerns(self, path: Path) -> bool:
        """Does something at this path matter? A parent that moves away or comes back does."""
        if any(path.is_relative_to(own) for own in self.ignored):
            return False
        return path in self.files or path in self.directories or path.parent in self.directories or path in self.above


def _with_links(paths: Iterable[Path]) -> frozenset[Path]:
    every = set()
    for path in paths:
        every.add(path.absolute())
        every.update(_hops(path.absolute()))
    return frozenset(every)


def _hops(path: Path) -> Iterator[Path]:
    """The path below its directory's real place, and the same of what each link on its end leads to."""
    for _ in range(_MOST_LINKS):
        path = path.parent.resolve() / path.name
        yield path
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists: there it will appear."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path
