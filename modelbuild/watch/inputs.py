"""The inputs of a recipe as they looked when a build began, and in words what has happened to them since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from modelbuild.watch.look import Look, look_at
from modelbuild.watch.watch_set import WatchSet

Looks = Mapping[Path, Look | None]


class Inputs:
    """The files and directories that a watch goes by. `set` follows the recipe; `known` is what the last build saw."""

    def __init__(self, recipe: Path, ignored: Sequence[Path]) -> None:
        self._recipe = recipe.absolute()
        self._ignored = ignored
        self.set = self._set_of((), ())
        self.known: Looks = {}

    def follow(self, files: Iterable[Path], directories: Iterable[Path]) -> None:
        """Go by what the recipe names now."""
        self.set = self._set_of(files, directories)

    def note_new(self) -> None:
        """What is new to the set is known as it looks at this moment; to be called once it is listened to."""
        self.known = {path: self.known.get(path, look) for path, look in self.looks().items()}

    def looks(self) -> Looks:
        """What all of them look like now."""
        return {path: look_at(path) for path in sorted(self.set.files | self.set.directories)}

    def changed(self) -> list[Path]:
        """Those that look different from when they were known; directories only where no file does."""
        different = [path for path, before in self.known.items() if look_at(path) != before]
        return [path for path in different if path in self.set.files] or different

    def changes(self) -> tuple[str, ...]:
        """In words, what happened to those; a file with several paths is named once."""
        words: dict[Path, str] = {}
        for path in sorted(self.changed(), key=lambda path: len(path.parts)):
            words.setdefault(path.resolve(), self._in_words(path))
        return tuple(sorted(set(words.values())))

    def names_of_changed(self) -> str:
        """Those for the middle of a sentence."""
        return ", ".join(dict.fromkeys(map(self.name_of, self.changed()))) or "an input"

    def name_of(self, path: Path) -> str:
        """A path as the recipe would name it; one outside of its directory by its last part."""
        base = self._recipe.parent
        for directory in (base, base.resolve()):
            if path.is_relative_to(directory):
                return str(path.relative_to(directory)) if path != directory else path.name
        return path.name

    def with_entries(self, paths: Sequence[Path]) -> Iterator[Path]:
        """The paths, and what stands in those of them whose listing counts: a file may have been heard of only so."""
        for path in paths:
            yield path
            if path in self.set.directories:
                with suppress(OSError):  # it is gone again
                    yield from path.iterdir()

    def _set_of(self, files: Iterable[Path], directories: Iterable[Path]) -> WatchSet:
        return WatchSet.of([self._recipe, *files], directories, self._ignored, self._recipe.parent)

    def _in_words(self, path: Path) -> str:
        name = self.name_of(path)
        if path not in self.set.files:
            return f"{name} changed"
        before, now = self.known.get(path), look_at(path)
        return f"{name} {'is gone' if now is None else 'appeared' if before is None else 'saved'}"
