"""`files`, `adapters` and `draft_files`: one path, a list of paths and patterns, or a mapping of names."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from modelbuild.digest import Digest, is_digest
from modelbuild.errors import Position, RecipeError, printable
from modelbuild.formats.files import is_directory, is_regular
from modelbuild.late_pattern import late_pattern
from modelbuild.recipe.located import located
from modelbuild.recipe.nodes import MappingNode, Node, ScalarNode, SequenceNode, is_null
from modelbuild.recipe.resolved import FileEntry
from modelbuild.recipe.roots import AllowedRoots
from modelbuild.similar_names import similar_names

#: Budgets of one pattern.
FILE_LIMIT = 100_000
DEPTH_LIMIT = 16
NAME_LIMIT_BYTES = 1024
_PATTERN = late_pattern(r"[*?\[]")


class FileSets:
    """Resolves sets of files; remembers the directories that patterns made it list."""

    def __init__(self, roots: AllowedRoots) -> None:
        self._roots = roots
        self.directories: dict[Path, None] = {}

    def entries(self, node: MappingNode, field: str) -> tuple[FileEntry, ...]:
        """The files of a field, sorted by name as bytes; RecipeError with a place for everything wrong with it."""
        value = node.get(field)
        if value is None or is_null(value):
            return ()
        entries = list(self._named(value) if isinstance(value, MappingNode) else self._listed(value))
        if not entries:
            raise RecipeError("MISSING", f"{field!r} is empty", value.position, hint="name a file, or remove the field")
        return tuple(sorted(entries, key=lambda entry: os.fsencode(entry.name)))

    def _named(self, value: MappingNode) -> Iterator[FileEntry]:
        seen: dict[str, str] = {}
        for name, content in value.entries.items():
            check_file_name(name, value.keys[name])
            folded = _folded(name)
            if folded in seen:
                message = f"{printable(name)!r} and {printable(seen[folded])!r} are one name on many file systems"
                raise RecipeError("DUPLICATE", message, value.keys[name], hint="give one of them another name")
            seen[folded] = name
            text = _text(content)
            if _claims_digest(text) and not is_digest(text):
                message = f"invalid digest format: {printable(text)!r}"
                raise RecipeError("DIGEST", message, content.position, hint="sha256: and 64 lower-case hex digits")
            yield FileEntry(name, Digest(text) if is_digest(text) else self._source(text, content), content.position)

    def _listed(self, value: Node) -> Iterator[FileEntry]:
        seen: dict[str, Path] = {}
        for item in value.items if isinstance(value, SequenceNode) else (value,):
            text = _text(item)
            if _claims_digest(text):
                hint = f"write it as a mapping: {{model.gguf: {printable(text)}}}"
                raise RecipeError("PATH", "a digest needs a file name", item.position, hint=hint)
            for path in self._matches(text, item) if _PATTERN.search(text) else (self._source(text, item),):
                if path.name in seen and seen[path.name] != path:
                    message = (
                        f"a second file called {printable(path.name)!r}; the first is {printable(str(seen[path.name]))}"
                    )
                    raise RecipeError("DUPLICATE", message, item.position, hint="use a mapping of names to paths")
                if path.name in seen:
                    message = f"{printable(path.name)!r} is named twice"
                    raise RecipeError("DUPLICATE", message, item.position, hint="remove one of them")
                seen[path.name] = path
                yield FileEntry(path.name, path, item.position)

    def _source(self, text: str, node: Node) -> Path:
        return located(lambda: self._roots.source(text, Path(node.position.path).parent), node.position)

    def _path(self, text: str, node: Node) -> Path:
        return located(lambda: self._roots.path(text, Path(node.position.path).parent), node.position)

    # -- patterns ------------------------------------------------------------------------------------------------

    def _matches(self, pattern: str, node: Node) -> list[Path]:
        """The files that a pattern means, sorted; hidden ones only when the pattern says so."""
        fixed, wild = _split_pattern(pattern)
        start = self._path(fixed, node)
        places = [start]
        for step in wild[:-1]:
            places = list(self._descend(places, step, node))
        names = wild[-1]
        found = [path for place in places for path in self._list(place, names, node) if is_regular(path)]
        if not found:
            raise self._no_match(pattern, start, node)
        for path in found:
            located(partial(self._roots.check, path), node.position)
        return sorted(dict.fromkeys(found))

    def _descend(self, places: list[Path], step: str, node: Node) -> Iterator[Path]:
        for place in places:
            if step == "**":
                yield from self._below(place, node, DEPTH_LIMIT)
            else:
                yield from (path for path in self._list(place, step, node) if is_directory(path))

    def _below(self, place: Path, node: Node, depth: int) -> Iterator[Path]:
        """A directory and all below it; links are not followed, so loops cannot trap."""
        if not depth:
            message = f"directories nested deeper than {DEPTH_LIMIT} below a '**'"
            raise RecipeError("LIMIT", message, node.position, hint="name the directory")
        yield place
        for path in self._list(place, "*", node):
            if is_directory(path) and not path.is_symlink():
                yield from self._below(path, node, depth - 1)

    def _list(self, place: Path, pattern: str, node: Node) -> list[Path]:
        try:
            names = sorted(os.listdir(place))  # noqa: PTH208 - names only; Path objects for what matches
        except OSError:
            return []
        self.directories[place] = None
        if len(names) > FILE_LIMIT:
            message = f"{len(names):,} files in {printable(str(place))}, at most {FILE_LIMIT:,} allowed"
            raise RecipeError("LIMIT", message, node.position)
        shown = names if pattern.startswith(".") else [name for name in names if not name.startswith(".")]
        return [place / name for name in fnmatch.filter(shown, pattern)]

    def _no_match(self, pattern: str, start: Path, node: Node) -> RecipeError:
        listed = sorted({path.name for place in self.directories for path in place.iterdir()})
        near = similar_names(pattern.rpartition("/")[2], listed, n=3, cutoff=0.3)
        hint = (
            f"there is {', '.join(map(printable, near))}" if near else f"nothing like it below {printable(str(start))}"
        )
        return RecipeError("PATH", f"no file matches {printable(pattern)!r}", node.position, hint=hint)


def check_file_name(name: str, position: Position) -> None:
    """RecipeError PATH unless the name is relative, of plain components with `/` between them."""
    parts = name.split("/")
    is_plain = not any(part in ("", ".", "..") for part in parts) or name == "."
    is_safe = "\0" not in name and len(name.encode()) <= NAME_LIMIT_BYTES and len(parts) <= DEPTH_LIMIT
    if not is_plain or not is_safe:
        message = f"file path must be relative: {printable(name)!r}"
        raise RecipeError("PATH", message, position, hint="for example 'model.gguf' or 'shards/a.safetensors'")


def _split_pattern(pattern: str) -> tuple[str, list[str]]:
    """The directory before the first wildcard, and the steps from it."""
    steps = pattern.split("/")
    index = next(number for number, step in enumerate(steps) if _PATTERN.search(step))
    fixed = "/".join(steps[:index])
    if pattern.startswith("/") and not fixed:
        fixed = "/"
    return fixed or ".", [step for step in steps[index:] if step]


def _claims_digest(text: str) -> bool:
    return text.startswith(("sha256:", "sha256-")) and "/" not in text


def _text(node: Node) -> str:
    return str(node.value) if isinstance(node, ScalarNode) else ""


def _folded(name: str) -> str:
    """The name as file systems see it that take no heed of case, or of how an accent is written."""
    if not name.isascii():
        import unicodedata

        name = unicodedata.normalize("NFC", name)
    return name.casefold()
