"""Blobs that a replaced or removed model leaves behind: noted first, deleted later, never while anybody may need them.

A note is a small file in the staging directory that lists digests. It is written before the manifest changes, so a
process killed in between leaves a note for the next run and no garbage for ever. Collecting needs the `blobs/`
directory alone: while any build shares it, the notes simply stay.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from modelbuild.digest import Digest, is_digest
from modelbuild.records import record
from modelbuild.store.blobs import LEFTOVERS_PREFIX, BlobStore

#: A note lists the layers of one manifest; a larger file is none of ours.
_NOTE_LIMIT_BYTES = 1 << 20


@record
class Collected:
    """What collecting did. waiting: why noted blobs stay for now, an empty text when none do."""

    removed: tuple[Digest, ...] = ()
    freed_bytes: int = 0
    waiting: str = ""


@record
class Leftovers:
    """Blobs that a model had, and the time since when they may be needless."""

    digests: Collection[Digest] = ()
    since_ns: int = 0


def note_leftovers(blobs: BlobStore, digests: Iterable[Digest]) -> None:
    """Write down blobs that may be needless once the coming change of a manifest is done; no note without any."""
    text = "".join(f"{digest}\n" for digest in sorted(set(digests)))
    if not text:
        return
    path = blobs.staging / f"{LEFTOVERS_PREFIX}{os.getpid()}-{os.urandom(8).hex()}"
    blobs.in_staging(lambda: path.write_bytes(text.encode("ascii")))


def has_leftovers(blobs: BlobStore) -> bool:
    """Is anything noted?"""
    return any(True for _ in _note_paths(blobs))


def collect_leftovers(blobs: BlobStore, used: Collection[Digest], unnoted: Leftovers | None = None) -> Collected:
    """Delete leftovers that are not `used`; the caller has worked those out while it owned the directory.

    unnoted: leftovers besides those in notes. A blob that was touched later has found a new use and stays.
    """
    paths = list(_note_paths(blobs))
    every = [*map(_read_note, paths), *([] if unnoted is None else [unnoted])]
    freed_bytes: dict[Digest, int] = {}
    for left in every:
        for digest in left.digests:
            size_bytes = None if digest in used else _remove_blob(blobs.path(digest), left.since_ns)
            if size_bytes is not None:
                freed_bytes[digest] = size_bytes
    for path in paths:
        with suppress(OSError):
            path.unlink()
    blobs.remove_empty_staging()
    return Collected(tuple(freed_bytes), sum(freed_bytes.values()))


def _note_paths(blobs: BlobStore) -> Iterator[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(blobs.staging))
    except OSError:
        return
    yield from (blobs.staging / name for name in names if name.startswith(LEFTOVERS_PREFIX))


def _read_note(path: Path) -> Leftovers:
    """What a note says; a line that was cut when its writer was killed is no digest and is skipped."""
    try:
        written_ns = path.stat().st_mtime_ns
        with path.open("rb") as source:
            lines = source.read(_NOTE_LIMIT_BYTES).decode("ascii", "replace").splitlines()
    except OSError:
        return Leftovers()
    return Leftovers(tuple(Digest(line) for line in lines if is_digest(line)), written_ns)


def _remove_blob(path: Path, since_ns: int) -> int | None:
    """Delete a blob unless it was used since it became needless; returns its size when it is gone."""
    try:
        status = path.lstat()
        if status.st_nlink == 1 and status.st_mtime_ns > since_ns:
            return None
        path.unlink()
    except OSError:
        return None
    return status.st_size
