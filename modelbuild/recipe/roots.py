"""Which files a recipe may read: those below its own directory and below roots that the user allows, no others.

A recipe may come from a stranger; it must not make its builder read, or put into a model, what lies elsewhere.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.formats.files import InputFile, is_directory, lexical_path
from modelbuild.late_pattern import late_pattern

#: A source directory has files in itself and in directories of its own; nothing deeper is ever read.
_SOURCE_DEPTH = 2
_ENTRY_LIMIT = 100_000
_ADDRESS = late_pattern(r"[A-Za-z][A-Za-z0-9+.-]*://", re.ASCII)


class AllowedRoots:
    """Turns the paths of a recipe into paths that may be opened.

    directory: that of the recipe the user named. allowed: more directories that the user, not the recipe, named.
    """

    def __init__(self, directory: Path, allowed: Sequence[Path] = ()) -> None:
        self._places = tuple(str(lexical_path(root)) for root in (directory, *allowed))
        self._roots = tuple(os.path.realpath(root) for root in (directory, *allowed))
        self._known: dict[tuple[str, str], Path] = {}

    def path(self, text: str, directory: Path) -> Path:
        """The path that a recipe in a directory means by a text.

        Raises InputError PATH for an address or a place outside the roots, LINK when a link leads there.
        """
        known = self._known.get((text, str(directory)))
        if known is not None:
            return known
        path = _join(text, directory)
        self.check(path)
        self._known[text, str(directory)] = path
        return path

    def source(self, text: str, directory: Path) -> Path:
        """Like `path`, for weights: when it is a directory, the links in it must not lead outside the roots either.

        A snapshot of a hub cache may link to the blobs of its own repository. Raises also InputError LIMIT for a
        directory with too many entries, LINK for links in a circle.
        """
        path = self.path(text, directory)
        if is_directory(path):
            repository = _hub_repository(path)
            for link in _links_below(path, _SOURCE_DEPTH):
                _refuse_loop(link)
                self.check(link, repository)
        return path

    def check(self, path: Path, *more: str) -> None:
        """InputError PATH or LINK unless the path, and what it leads to, lie below a root, or one of `more`."""
        real = os.path.realpath(path)
        if _holds((*self._roots, *filter(None, more)), real):
            return
        is_link = _holds(self._places, str(lexical_path(path)))  # what the recipe says
        outside = Path(real).parent
        raise InputError(
            "LINK" if is_link else "PATH",
            f"{'a link that leads' if is_link else 'lies'} outside the recipe's directory",
            path=printable(str(path), 4096),
            hint=f"if the recipe may read there: --allow-root {printable(str(outside), 4096)}",
        )

    def confirm(self, source: InputFile) -> None:
        """InputError LINK unless an open file lies below a root: a link may have been replaced since it was checked."""
        place = f"/proc/self/fd/{source.fd}"
        real = os.path.realpath(place)
        if real != place and not _holds(self._roots, real):
            raise InputError("LINK", "it was replaced by a link that leads elsewhere", path=source.path)


def _hub_repository(snapshot: Path) -> str:
    """The directory with `blobs` and `snapshots` that a snapshot belongs to, or an empty text."""
    snapshots = Path(os.path.realpath(snapshot)).parent
    is_snapshot = snapshots.name == "snapshots" and is_directory(snapshots.parent / "blobs")
    return str(snapshots.parent) if is_snapshot else ""


def _links_below(directory: Path, depth: int) -> Iterator[Path]:
    """The links in a directory and, so many levels deep, in directories of it that are no links."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    if len(entries) > _ENTRY_LIMIT:
        raise InputError("LIMIT", f"{len(entries):,} entries, at most {_ENTRY_LIMIT:,} allowed", path=directory)
    for entry in entries:
        if entry.is_symlink():
            yield Path(entry.path)
        elif depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _links_below(Path(entry.path), depth - 1)


def _refuse_loop(link: Path) -> None:
    try:
        link.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError("LINK", "links that lead to each other", path=link, hint="remove them") from error


def _holds(roots: Sequence[str], place: str) -> bool:
    return any(place == root or place.startswith(root.rstrip("/") + "/") for root in roots)


def _join(text: str, directory: Path) -> Path:
    if _ADDRESS.match(text):
        hint = "nothing is downloaded while building; download the file and give its path"
        raise InputError("PATH", f"an address where a file is expected: {printable(text)!r}", hint=hint)
    if "\0" in text:
        raise InputError("PATH", f"a path cannot hold NUL: {printable(text)!r}")
    try:
        return directory / Path(text).expanduser()
    except RuntimeError as error:  # no such user
        raise InputError("PATH", f"there is no such home directory: {printable(text)!r}") from error
