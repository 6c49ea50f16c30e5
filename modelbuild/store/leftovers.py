"""Blobs that a replaced or removed model leaves behind: noted first, deleted later, never while anybody may need them.

A note is a small file in the staging directory that lists digests. It is written before the manifest changes, so a
process killed in between leaves a note for the next run and no garbage for ever. Collecting needs the `blobs/`
directory alone: while any build shares it, the notes simply stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from modelbuild.digest import Digest, is_digest
from modelbuild.records import record
from modelbuild.store.blobs import LEFTOVERS_PREFIX, BlobStore
from modelbuild.store.staged import unusable_store

#: A note lists the layers of one manifest; a larger file is none of ours.
_NOTE_LIMIT_BYTES = 1 << 20


@record
class Collected:
    """What collecting did. waiting: why noted blobs stay for now, an empty text when none do."""

    removed: tuple[Digest, ...] = ()
    freed_bytes: int = 0
    waiting: str = ""


@record
class _Note:
    path: Path
    written_ns: int
    digests: tuple[Digest, ...]


def note_leftovers(blobs: BlobStore, digests: Iterable[Digest]) -> None:
    """Write down blobs that may be needless once the coming change of a manifest is done."""
    text = "".join(f"{digest}\n" for digest in sorted(set(digests)))
    path = blobs.staging / f"{LEFTOVERS_PREFIX}{os.getpid()}-{os.urandom(8).hex()}"
    for _ in range(100):  # a neighbour may remove the empty directory between the two calls
        try:
            blobs.staging.mkdir(exist_ok=True)
            path.write_bytes(text.encode("ascii"))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unusable_store(path, error) from error
        return


def has_leftovers(blobs: BlobStore) -> bool:
    """Is anything noted?"""
    return any(True for _ in _note_paths(blobs))


def collect_leftovers(blobs: BlobStore, used: Iterable[Digest]) -> Collected:
    """Delete the noted blobs that are not `used`; the caller has worked those out while it owned the directory.

    A blob that was touched after its note was written has found a new use and stays.
    """
    keep = set(used)
    removed: list[Digest] = []
    freed_bytes = 0
    for note in [_read_note(path) for path in _note_paths(blobs)]:
        for digest in note.digests:
            size_bytes = None if digest in keep else _remove_blob(blobs.path(digest), note.written_ns)
            if size_bytes is not None:
                removed.append(digest)
                freed_bytes += size_bytes
        with suppress(OSError):
            note.path.unlink()
    with suppress(OSError):
        blobs.staging.rmdir()
    return Collected(tuple(removed), freed_bytes)


def _note_paths(blobs: BlobStore) -> Iterator[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(blobs.staging))
    except OSError:
        return
    yield from (blobs.staging / name for name in names if name.startswith(LEFTOVERS_PREFIX))


def _read_note(path: Path) -> _Note:
    """A note; a line that was cut when its writer was killed is no digest and is skipped."""
    try:
        written_ns = path.stat().st_mtime_ns
        with path.open("rb") as source:
            lines = source.read(_NOTE_LIMIT_BYTES).decode("ascii", "replace").splitlines()
    except OSError:
        return _Note(path, 0, ())
    return _Note(path, written_ns, tuple(Digest(line) for line in lines if is_digest(line)))


def _remove_blob(path: Path, noted_ns: int) -> int | None:
    """Delete a blob unless it was used after the note; returns its size when it is gone."""
    try:
        status = path.lstat()
        if status.st_nlink == 1 and status.st_mtime_ns > noted_ns:
            return None
        path.unlink()
    except OSError:
        return None
    return status.st_size
