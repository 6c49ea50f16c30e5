"""The no-op check: has anything moved since this recipe was last found up to date?

A snapshot remembers, for one recipe and one set of options, the stat records of everything that was read and the
sizes of everything that was made. It only ever answers "nothing moved"; every doubt falls through to the planner.
This module decides how fast an unchanged build is, so it imports next to nothing: BLAKE3 and not SHA-256, for example,
because hashlib loads all of OpenSSL.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from modelbuild import __version__
from modelbuild.store.state import RACY_WINDOW_NS, State, trusted_since

#: Raised when the stored form changes.
_SNAPSHOT_VERSION = 4
#: Young files are compared by content if that is cheaper than planning.
_CHEAP_HASH_BYTES = 1 << 20


class SnapshotModel(NamedTuple):
    """A model that a snapshot vouches for: what `build` prints about it."""

    name: str
    digest: str
    size_bytes: int


def snapshot_key(recipe: Path, store: Path, wanted: Sequence[str], options: Sequence[str] = ()) -> str:
    """The key for a recipe, a store, the wanted models, and the options that the recipe is read with."""
    places = [str(recipe.absolute()), str(store.absolute())]
    parts = [_SNAPSHOT_VERSION, __version__, *places, sorted(wanted), list(options)]
    return blake3(json.dumps(parts).encode()).hexdigest()


def find_unchanged(state: State, key: str) -> tuple[list[SnapshotModel], int] | None:
    """The models and the number of actions of an up-to-date build, or None when anything may have moved."""
    text = state.snapshot(key)
    if text is None:
        return None
    record = json.loads(text)
    if record["environment"] != _fingerprints((name, os.environ.get(name)) for name, _ in record["environment"]):
        return None
    if not all(_is_same_blob(*item) for item in record["blobs"]):
        return None
    if not all(_is_same_output(*item) for item in record["outputs"]):
        return None
    verdicts = [_compare(*row) for row in record["files"]]
    if None in verdicts:
        return None
    if False in verdicts:
        _trust_from_now(state, key, record)
    return [SnapshotModel(*item) for item in record["models"]], record["actions"]


def record_unchanged(
    state: State,
    key: str,
    *,
    inputs: Iterable[Path],
    manifests: Iterable[Path],
    blobs: Iterable[Path],
    models: Iterable[SnapshotModel],
    actions: int,
    started_ns: int,
    outputs: Iterable[Path] = (),
    environment: Iterable[tuple[str, str | None]] = (),
) -> None:
    """Remember that everything is up to date; started_ns is the time before the first input was read.

    inputs: files and directories that were read. outputs: files that were written beside the store. environment: the
    environment variables that were asked for, with their values. An input that changed since then, and anything that is
    gone by now, makes the snapshot useless, so none is recorded.
    """
    try:
        rows = [_input_row(path, started_ns) for path in sorted(set(inputs))]
        rows += [_row(path, path.stat(), started_ns) for path in sorted(set(manifests))]
        record = {
            "files": rows,
            "blobs": [[str(path), *_blob_fields(path.lstat())] for path in sorted(set(blobs))],
            "outputs": [[str(path.absolute()), _fields(path.lstat())] for path in sorted(set(outputs))],
            "models": [[item.name, item.digest, item.size_bytes] for item in models],
            "actions": actions,
            "environment": _fingerprints(environment),
        }
    except OSError:
        return
    if None in rows:
        return
    state.record_snapshot(key, json.dumps(record, separators=(",", ":")))


def _input_row(path: Path, started_ns: int) -> list[object] | None:
    """What is remembered of an input; None when it changed after it was read."""
    status = path.stat()
    recorded_ns = trusted_since(status, started_ns)
    if max(status.st_mtime_ns, status.st_ctime_ns) > max(started_ns, recorded_ns):
        return None
    return _row(path, status, recorded_ns)


def _row(path: Path, status: os.stat_result, recorded_ns: int) -> list[object]:
    return [str(path.absolute()), _fields(status), _content(path, status), recorded_ns]


def _fingerprints(environment: Iterable[tuple[str, str | None]]) -> list[list[str | None]]:
    """Names with digests of their values, which may be secrets."""
    return [
        [name, None if value is None else blake3(value.encode("utf-8", "surrogateescape")).hexdigest()]
        for name, value in environment
    ]


def _trust_from_now(state: State, key: str, record: dict[str, Any]) -> None:
    """The contents of young files were compared, so from now on their stat records count."""
    now_ns = time.time_ns()
    rows = [[path, fields, content, max(recorded_ns, now_ns)] for path, fields, content, recorded_ns in record["files"]]
    state.record_snapshot(key, json.dumps(record | {"files": rows}, separators=(",", ":")))


def _fields(status: os.stat_result) -> list[int]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _blob_fields(status: os.stat_result) -> list[int]:
    """Size, and the time of a hard-linked blob: its content can change through the other name."""
    return [status.st_size, status.st_mtime_ns if status.st_nlink > 1 else 0]


def _is_same_blob(path: str, size_bytes: int, mtime_ns: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size_bytes and mtime_ns in (0, status.st_mtime_ns)


def _is_same_output(path: str, wanted: list[int]) -> bool:
    """A file that its owner may do anything with; its times are never made up for, since planning compares contents."""
    try:
        return _fields(os.lstat(path)) == wanted
    except OSError:
        return False


def _compare(path: str, wanted: list[int], content: str | None, recorded_ns: int) -> bool | None:
    """True: certainly the same; False: the same by content; None: changed, or too costly to tell."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path object costs more than the call
        if _fields(status) != wanted:
            return None
        if max(status.st_mtime_ns, status.st_ctime_ns) + RACY_WINDOW_NS < recorded_ns:
            return True
        return False if content is not None and content == _content(Path(path), status) else None
    except OSError:
        return None


def _content(path: Path, status: os.stat_result) -> str | None:
    """A fingerprint of a small file's content or of a directory's listing; None for large files."""
    if stat.S_ISDIR(status.st_mode):
        names = "\0".join(sorted(entry.name for entry in path.iterdir()))
        return blake3(names.encode("utf-8", "surrogateescape")).hexdigest()
    if status.st_size > _CHEAP_HASH_BYTES:
        return None
    return blake3(path.read_bytes()).hexdigest()
