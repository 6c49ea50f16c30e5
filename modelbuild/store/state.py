"""What earlier runs learnt, in one SQLite file of the cache directory.

Everything in it is a hint: losing the file costs time, never correctness. A file digest counts only while device,
inode, size and both times agree and the record is clearly younger than the file; an action's result counts only
while its blobs stand in the store.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

from modelbuild.digest import Digest
from modelbuild.errors import StoreError

STATE_FILE = "state.sqlite3"
#: Raised when a table changes; an older file is dropped, not migrated.
STATE_VERSION = 4
#: File systems keep times in steps of up to two seconds; a younger file may have changed unseen.
RACY_WINDOW_NS = 2_000_000_000
_LOCK_WAIT_S = 30.0
#: Some file systems number inodes with all 64 bits; SQLite keeps signed ones.
_SQLITE_INTEGERS = (1 << 63) - 1

#: How the rows of a table are found, where that is not by the one column `key`.
_KEY_COLUMNS = {"files": "path=? AND scheme=?", "outputs": "output=?"}
#: SQLite's codes for a content that makes no sense: an unknown table or column, a malformed page, no database at all,
#: a page that is cut off.
_DAMAGE = (1, 11, 26, 10 | 2 << 8)
_Answer = TypeVar("_Answer")

_TABLES = f"""
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
BEGIN;
CREATE TABLE IF NOT EXISTS files (path TEXT, scheme TEXT, device INT, inode INT, size INT, mtime_ns INT, ctime_ns INT,
    digest TEXT NOT NULL, recorded_ns INT NOT NULL, seal INT NOT NULL, PRIMARY KEY (path, scheme)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS weights (key TEXT PRIMARY KEY, tensors TEXT NOT NULL, seal INT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS packed (key TEXT PRIMARY KEY, blob TEXT NOT NULL, offset INT NOT NULL, size INT NOT NULL,
    checks BLOB NOT NULL, seal INT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, manifest TEXT NOT NULL, result TEXT NOT NULL,
    recorded_ns INT NOT NULL, seal INT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outputs (output TEXT PRIMARY KEY, key TEXT NOT NULL, seal INT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstones (key TEXT PRIMARY KEY, evicted_ns INT NOT NULL, by TEXT NOT NULL,
    seal INT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshots (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal INT NOT NULL) WITHOUT ROWID;
PRAGMA user_version={STATE_VERSION};
COMMIT;
"""


class FileStat(NamedTuple):
    """What the file system says about a file; equal records mean the content cannot have changed unseen."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStat:
        """The record of an `os.stat` result."""
        device, inode = status.st_dev & _SQLITE_INTEGERS, status.st_ino & _SQLITE_INTEGERS
        return cls(device, inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_same_content(self, other: FileStat) -> bool:
        """Do two records made within one run speak of the same content? ctime may differ: linking a file moves it."""
        return (self.device, self.inode, self.size_bytes, self.mtime_ns) == (
            other.device, other.inode, other.size_bytes, other.mtime_ns,
        )  # fmt: skip

    def is_settled(self, recorded_ns: int) -> bool:
        """Was the file clearly older than a record made at `recorded_ns`?"""
        return max(self.mtime_ns, self.ctime_ns) + RACY_WINDOW_NS < recorded_ns


def trusted_since(status: os.stat_result, recorded_ns: int) -> int:
    """From when a record of a file counts that was read at `recorded_ns` and maybe hard-linked by us afterwards.

    Linking moves ctime to now. A file whose mtime was settled when it was read is still the one we read, so the new
    ctime must not make it look young.
    """
    if status.st_nlink > 1 and status.st_mtime_ns + RACY_WINDOW_NS < recorded_ns:
        return max(recorded_ns, status.st_ctime_ns + RACY_WINDOW_NS + 1)
    return recorded_ns


class ActionRecord(NamedTuple):
    """The last time an action ran: its key, the manifest behind the key, its result (both canonical JSON)."""

    key: str
    manifest: str
    result: str


class PackedTensor(NamedTuple):
    """The bytes of a packed tensor inside a blob; checks holds one check sum per row block, in order."""

    blob: Digest
    offset: int
    size_bytes: int
    checks: bytes


class State:
    """The state file of one cache directory; opened lazily, safe for several processes."""

    def __init__(self, cache: Path) -> None:
        self.path = cache / STATE_FILE
        self._connection = _open(self.path)

    def close(self) -> None:
        """Close the file; the object cannot be used afterwards."""
        self._connection.close()

    def file_digest(self, path: str, scheme: str, stat: FileStat) -> Digest | None:
        """The digest recorded for a file, if the record can be trusted for this stat.

        scheme: how the digest was made ("sha256", or "tensors" for a digest over single tensors).
        """
        row = self._row("files", path, scheme)
        if row is None or FileStat(*row[2:7]) != stat or not stat.is_settled(row[8]):
            return None
        return Digest(row[7])

    def last_file_digest(self, path: str, scheme: str) -> Digest | None:
        """The digest a file had when it was last read, trusted or not; for explanations."""
        row = self._row("files", path, scheme)
        return None if row is None else Digest(row[7])

    def last_file_stat(self, path: str, scheme: str) -> FileStat | None:
        """The stat record a file had when it was last read, trusted or not; for explanations."""
        row = self._row("files", path, scheme)
        return None if row is None else FileStat(*row[2:7])

    def record_file(self, path: str, scheme: str, stat: FileStat, digest: Digest, recorded_ns: int) -> None:
        """Remember a file's digest; recorded_ns is the time before the file was read."""
        self._put("files", (path, scheme, *stat, digest, recorded_ns))

    def tensor_digests(self, digest: Digest) -> dict[str, str]:
        """The digest of each tensor of a weights file, by the digest of the file; empty when it is not known."""
        row = self._row("weights", digest)
        return {} if row is None else dict(json.loads(row[1]))

    def record_tensor_digests(self, digest: Digest, tensors: Mapping[str, str]) -> None:
        """Remember the digests of the tensors in a weights file."""
        self._put("weights", (digest, json.dumps(dict(tensors), separators=(",", ":"))))

    def packed_tensor(self, key: str) -> PackedTensor | None:
        """Where the bytes of a packed tensor stand, by its tensor key."""
        row = self._row("packed", key)
        return None if row is None else PackedTensor(Digest(row[1]), row[2], row[3], row[4])

    def record_packed_tensors(self, packed: Mapping[str, PackedTensor]) -> None:
        """Remember packed tensors by their tensor keys."""
        rows = [(key, item.blob, item.offset, item.size_bytes, item.checks) for key, item in packed.items()]
        self._put("packed", *rows)

    def record_tombstones(self, digests: Iterable[Digest], by: str) -> None:
        """Remember that blobs were deleted on purpose, now, and by whom; explanations quote it."""
        now_ns = time.time_ns()
        self._put("tombstones", *((digest, now_ns, by) for digest in digests))

    def tombstone(self, digest: Digest) -> tuple[int, str] | None:
        """When (Unix time in nanoseconds) and by whom a blob was deleted on purpose."""
        row = self._row("tombstones", digest)
        return None if row is None else (int(row[1]), str(row[2]))

    def result(self, key: str) -> ActionRecord | None:
        """What the action with this key gave, whoever ran it."""
        row = self._row("results", key)
        return None if row is None else ActionRecord(*row[:3])

    def last_action(self, output: str) -> ActionRecord | None:
        """The record of the action that last made this output."""
        row = self._row("outputs", output)
        return None if row is None else self.result(row[1])

    def last_key(self, output: str) -> str | None:
        """The key of the action that last made this output."""
        row = self._row("outputs", output)
        return None if row is None else str(row[1])

    def record_action(self, output: str, record: ActionRecord) -> None:
        """Remember a finished action and that it made this output."""
        self._put("results", (record.key, record.manifest, record.result, time.time_ns()))
        self._put("outputs", (output, record.key))

    def snapshot(self, key: str) -> str | None:
        """The snapshot stored under a key (see engine/snapshot.py), or None."""
        row = self._row("snapshots", key)
        return None if row is None else str(row[1])

    def record_snapshot(self, key: str, value: str) -> None:
        """Replace the snapshot stored under a key."""
        self._put("snapshots", (key, value))

    # -- rows ------------------------------------------------------------------------------------------------------

    def _row(self, table: str, *key: str) -> tuple[Any, ...] | None:
        """The row of a key without its seal; None when there is none, or when it is not what was written."""
        names, wanted = _KEY_COLUMNS.get(table, "key=?"), tuple(map(_storable, key))
        query = f"SELECT * FROM {table} WHERE {names}"  # noqa: S608 - both from this module
        found: tuple[Any, ...] | None = self._mend(lambda: self._connection.execute(query, wanted).fetchone())
        return None if found is None or found[-1] != _seal(found[:-1]) else found[:-1]

    def _put(self, table: str, *rows: tuple[object, ...]) -> None:
        """Write rows in one transaction, each with a seal over its values."""
        if not rows:
            return
        marks = ",".join("?" * (len(rows[0]) + 1))
        statement = f"INSERT OR REPLACE INTO {table} VALUES ({marks})"  # noqa: S608 - from this module
        stored = [tuple(map(_storable, row)) for row in rows]
        sealed = [(*row, _seal(row)) for row in stored]

        def write() -> None:
            with self._connection:
                self._connection.executemany(statement, sealed)

        self._mend(write)

    def _mend(self, work: Callable[[], _Answer]) -> _Answer:
        """Do some work; a damaged file is set aside and the work done on an empty one. StoreError for other trouble."""
        try:
            return work()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not _is_damage(error):
                raise _unusable(self.path, error) from error
        self._connection.close()
        _set_aside(self.path)
        self._connection = _open(self.path)
        try:
            return work()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error


def _storable(value: object) -> object:
    """A value that SQLite takes: the bytes of a path may be no text. Two that become one cost a read, as doubts do."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()


def _seal(values: tuple[object, ...]) -> int:
    """A check sum over a row: SQLite notices a rotten page only where its own structure is hit."""
    return crc32(repr(values).encode("utf-8", "backslashreplace"))


def _is_damage(error: Exception) -> bool:
    """Is the content of the file to blame? A file that is locked, full or read-only is sound."""
    if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode"):
        return True  # not from SQLite but from the module above it: a text that is no UTF-8
    return isinstance(error, UnicodeDecodeError) or getattr(error, "sqlite_errorcode", 0) in _DAMAGE


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        "CACHE",
        f"cannot use the cache {path.parent}: {getattr(error, 'strerror', None) or error}",
        hint="choose another directory with --cache, or remove this one: it only saves time",
    )


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(path.parent)
        try:
            return _connect(path)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not (_is_damage(error) or isinstance(error, _OldVersionError)):
                raise
            _set_aside(path)
            return _connect(path)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error


class _OldVersionError(sqlite3.DatabaseError):
    """The file was written by another version of this module."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_LOCK_WAIT_S)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, STATE_VERSION):
            raise _OldVersionError(f"state version {version}, {STATE_VERSION} expected")
        if version == 0:
            connection.executescript(_TABLES)
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def _set_aside(path: Path) -> None:
    """Move a damaged file out of the way, unless another process was faster; its write-ahead log goes, too."""
    with suppress(FileNotFoundError):
        path.rename(path.with_suffix(".damaged"))
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()


def _check_owner(directory: Path) -> None:
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StoreError(
            "CACHE",
            f"the cache {directory} belongs to or can be written by somebody else",
            hint="run 'chmod go-w' on it, or choose another directory with --cache",
        )
