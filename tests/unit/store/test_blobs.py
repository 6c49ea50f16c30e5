"""Blobs: content under its digest, whole or not at all, whichever way it got there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelbuild.digest import digest_of
from modelbuild.errors import ChangedError, SpaceError, StoreError
from modelbuild.formats.files import open_input
from modelbuild.store import staged as staged_files
from modelbuild.store.adopt import Adopted, adopt_file
from modelbuild.store.blobs import BlobStore
from modelbuild.store.partial import PartialFile

DATA = b"weights " * 1000
DIGEST = digest_of(DATA)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "models")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(DATA)
    path.chmod(0o644)
    return path


def adopt(blobs: BlobStore, path: Path, **options: object) -> Adopted:
    with open_input(path) as source:
        return adopt_file(blobs, source, **options)  # type: ignore[arg-type]


def files(blobs: BlobStore) -> dict[str, bytes]:
    """Every file of the store by its path."""
    return {str(p.relative_to(blobs.root)): p.read_bytes() for p in blobs.root.rglob("*") if p.is_file()}


def only_blob() -> dict[str, bytes]:
    return {f"blobs/{DIGEST.replace(':', '-')}": DATA}


def test_small_content_stands_under_its_digest(blobs: BlobStore) -> None:
    """The name is the digest, the mode lets others read, nothing else is left."""
    assert DIGEST == blobs.put(DATA)
    assert only_blob() == files(blobs)
    assert 0o644 == stat.S_IMODE(blobs.path(DIGEST).stat().st_mode)
    assert not blobs.staging.exists()


def test_content_that_is_there_is_not_written_again(blobs: BlobStore) -> None:
    """It is touched, so that Ollama's start-up cleaning does not take it for a leftover."""
    blobs.put(DATA)
    before = blobs.path(DIGEST).stat()
    os.utime(blobs.path(DIGEST), (1, 1))

    blobs.put(DATA)

    assert before.st_ino == blobs.path(DIGEST).stat().st_ino
    assert 1 < blobs.path(DIGEST).stat().st_mtime


@pytest.mark.parametrize("damage", [b"", b"short", DATA + b"x"])
def test_blob_of_the_wrong_size_is_replaced(blobs: BlobStore, source: Path, damage: bytes) -> None:
    """A torn blob of another writer does not count as present, for either way of storing."""
    blobs.prepare()
    blobs.path(DIGEST).write_bytes(damage)
    blobs.put(DATA)
    assert only_blob() == files(blobs)

    for link in ("copy", "hard"):
        blobs.path(DIGEST).unlink()
        blobs.path(DIGEST).write_bytes(damage)
        adopt(blobs, source, link=link)
        assert only_blob() == files(blobs)


@pytest.mark.parametrize("what", ["directory", "fifo", "link"])
def test_only_regular_files_are_blobs(blobs: BlobStore, tmp_path: Path, what: str) -> None:
    """A directory, a pipe or a link in the place of a blob is a missing blob, and asking never hangs."""
    blobs.prepare()
    path = blobs.path(DIGEST)
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        (tmp_path / "elsewhere").write_bytes(DATA)
        path.symlink_to(tmp_path / "elsewhere")

    assert blobs.size_of(DIGEST) is None


def test_auto_links_a_file_of_ours(blobs: BlobStore, source: Path) -> None:
    """No second copy on disk: a reflink where the file system can, else a hard link."""
    adopted = adopt(blobs, source)

    assert (DIGEST, len(DATA)) == (adopted.digest, adopted.size_bytes)
    assert adopted.how in ("reflink", "hard link")
    assert only_blob() == files(blobs)


def test_file_that_others_can_write_is_copied(blobs: BlobStore, source: Path) -> None:
    """A link would let them change the blob."""
    source.chmod(0o666)

    adopted = adopt(blobs, source)

    assert adopted.how in ("reflink", "copy")
    assert not blobs.path(DIGEST).samefile(source)


def test_asked_for_hard_link_shares_the_file(blobs: BlobStore, source: Path) -> None:
    """The blob is the file itself; its mode and times are left alone."""
    os.utime(source, (1, 1))

    adopted = adopt(blobs, source, link="hard")
    blobs.refresh(DIGEST)

    assert "hard link" == adopted.how
    assert blobs.path(DIGEST).samefile(source)
    assert 1 == source.stat().st_mtime


def test_asked_for_copy_is_a_copy(blobs: BlobStore, source: Path) -> None:
    """Later edits of the file do not reach the blob."""
    adopted = adopt(blobs, source, link="copy")
    source.write_bytes(b"edited")

    assert "copy" == adopted.how
    assert only_blob() == files(blobs)


def test_deleted_source_leaves_the_blob(blobs: BlobStore, source: Path) -> None:
    """Whatever the way, the blob has its own name."""
    adopt(blobs, source)
    source.unlink()

    assert only_blob() == files(blobs)


def test_replaced_source_leaves_the_blob(blobs: BlobStore, source: Path) -> None:
    """An editor that writes a new file and renames it does not touch the old one."""
    adopt(blobs, source, link="hard")
    (source.parent / "new").write_bytes(b"new")
    (source.parent / "new").rename(source)

    assert only_blob() == files(blobs)


def test_known_content_is_not_read(blobs: BlobStore, source: Path) -> None:
    """With the digest known and the blob there, adopting reads nothing."""
    blobs.put(DATA)
    read: list[int] = []

    adopted = adopt(blobs, source, known=DIGEST, progress=read.append)

    assert ("present", []) == (adopted.how, read)


def test_link_that_cannot_be_made_is_an_error_when_asked_for(
    blobs: BlobStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--link hard` never copies silently; auto does."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="cannot make a hard link"):
        adopt(blobs, source, link="hard")
    assert {} == files(blobs)

    assert adopt(blobs, source).how in ("reflink", "copy")


def test_reflink_on_a_file_system_without_is_an_error_when_asked_for(
    blobs: BlobStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text says what to use instead."""

    def refuse(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("fcntl.ioctl", refuse)
    with pytest.raises(StoreError) as caught:
        adopt(blobs, source, link="reflink")

    assert "--link auto" in caught.value.hint
    assert {} == files(blobs)


@pytest.mark.parametrize("link", ["hard", "copy", "auto"])
def test_file_that_changes_while_it_is_read_is_dropped(blobs: BlobStore, source: Path, link: str) -> None:
    """Nothing may stand under a digest that is not its own."""
    changed = b"x" * len(DATA)

    def change(done_bytes: int) -> None:
        source.write_bytes(changed)
        os.utime(source, ns=(10**18, 10**18))

    with pytest.raises(ChangedError):
        adopt(blobs, source, link=link, progress=change)

    assert {} == files(blobs)


@pytest.mark.parametrize("link", ["hard", "copy", "auto"])
def test_file_cut_while_it_is_read_is_an_error(blobs: BlobStore, tmp_path: Path, link: str) -> None:
    """A shrinking source ends in an error, never in a crash or a blob."""
    path = tmp_path / "large"
    path.write_bytes(b"x" * (3 << 20))

    with pytest.raises(ChangedError):
        adopt(blobs, path, link=link, progress=lambda done_bytes: os.truncate(path, 1 << 20))

    assert {} == files(blobs)


def test_same_content_at_once_is_one_blob(blobs: BlobStore) -> None:
    """Many writers of one content all succeed."""

    def put(_: int) -> None:
        for _ in range(20):
            blobs.put(DATA)
            blobs.sweep()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))

    assert only_blob() == files(blobs)


def test_failed_staging_leaves_nothing(blobs: BlobStore) -> None:
    """An error while writing removes what was staged."""

    def write_half() -> None:
        with blobs.stage(100) as staged:
            staged.write_at(0, b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()

    assert {} == files(blobs)
    assert not blobs.staging.exists()


def test_sweeping_removes_dead_files_and_keeps_live_ones(blobs: BlobStore) -> None:
    """A file of a dead process has no lock; one that is being written has."""
    with blobs.stage() as staged:
        (blobs.staging / "123-dead").write_bytes(b"left behind")
        blobs.sweep()

        assert [staged.path] == list(blobs.staging.iterdir())


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, SpaceError), (errno.EDQUOT, SpaceError), (errno.EIO, StoreError)]
)
@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fdatasync", "rename", "fchmod"])
def test_system_errors_become_store_errors_and_leave_nothing(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[StoreError]
) -> None:
    """A full disk says so with numbers, anything else names the path; no blob, no temporary file stays."""

    def fail(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    def store() -> None:
        with blobs.stage(len(DATA)) as staged:
            staged.write_at(0, DATA)
            staged.publish(DIGEST)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind) as caught:
        store()

    assert ("bytes needed" in caught.value.message) == (kind is SpaceError)
    assert caught.value.hint
    assert {} == files(blobs)


@pytest.mark.parametrize("call", ["open", "write"])
def test_a_journal_without_room_holds_nobody_up(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A server that could not begin a file goes on with it when there is room, and has no file open meanwhile."""
    real = getattr(os, call)

    def refuse(target: object, *given: object, **options: object) -> object:
        if bytes(32) in given or str(target).endswith(".journal"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(target, *given, **options)

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    before = open_files()
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(SpaceError), blobs.stage_partial("0" * 64, bytes(32), 10):
            pass

    assert before == open_files()
    with blobs.stage_partial("0" * 64, bytes(32), 10) as staged:
        assert isinstance(staged, PartialFile)


def test_short_writes_are_continued(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may write less than asked for."""
    real: Callable[[int, memoryview, int], int] = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, memoryview(data)[:1000], offset))

    blobs.put(DATA)

    assert only_blob() == files(blobs)


def test_disk_begins_before_the_file_is_whole(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written in one run is handed to the disk piece by piece, so that publishing hardly waits."""
    told: list[tuple[int, int, int]] = []
    monkeypatch.setattr(staged_files, "_FLUSHED_BYTES", 100)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, size, advice: told.append((offset, size, advice)))

    with blobs.stage() as staged:
        for offset in (0, 60, 120, 180, 500, 560):
            staged.write_at(offset, bytes(60))

    assert [(start, 120, os.POSIX_FADV_DONTNEED) for start in (0, 120, 500)] == told


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_unwritable_store_is_a_store_error(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A read-only file system is named with what to do."""

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreError, match="Read-only file system"):
        blobs.put(DATA)


def test_a_file_in_the_place_of_the_store_is_a_store_error(tmp_path: Path) -> None:
    """`--store` naming a file."""
    (tmp_path / "models").write_text("a file")

    with pytest.raises(StoreError, match="cannot use"):
        BlobStore(tmp_path / "models").put(DATA)
