"""One process at a time per action: kernel locks in the cache directory, which a killed process cannot leave behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from modelbuild.digest import sha256_hex
from modelbuild.errors import StoreError
from modelbuild.records import record

LOCK_DIRECTORY = "locks"


class Held:
    """Locks that this process has, until they are released."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self._files: list[tuple[Path, int]] = []

    def add(self, path: Path, fd: int) -> None:
        """Take charge of the locked descriptor of a file."""
        self._files.append((path, fd))

    def release(self) -> None:
        """Give all of them back; safe to call twice."""
        for path, fd in self._files:
            with suppress(OSError):
                path.unlink()
            os.close(fd)
        self._files.clear()

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Flag:
    """Shows that somebody waits; several may show the same."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def lower(self) -> None:
        """Wait no more; the last one removes the file."""
        with suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink()
        os.close(self._fd)


@record
class Taken:
    """A name that somebody else has locked. holder: the process id, or a description."""

    name: str
    holder: str


class ActionLocks:
    """The locks of one cache directory; readers of results need none."""

    def __init__(self, cache: Path) -> None:
        self._directory = cache / LOCK_DIRECTORY

    def try_hold(self, names: Collection[str]) -> Held | Taken:
        """The locks of all these names, or none of them and the first that somebody else has.

        Never waits: a process that has locks and waited for more could wait for one that waits for it.
        """
        held = Held()
        try:
            for name in sorted(set(names)):
                holder = self._add(held, name)
                if holder:
                    held.release()
                    return Taken(name, holder)
        except BaseException:
            held.release()
            raise
        held.names = frozenset(names)
        return held

    def flag(self, name: str) -> Flag | None:
        """Show that somebody waits for a name, until the flag is lowered; None when that did not work this time."""
        with suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._flag_path(name)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with suppress(OSError):  # somebody looks at it at this moment
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if _stands_at(fd, path):
                    return Flag(path, fd)
            os.close(fd)
        return None

    def is_flagged(self, name: str) -> bool:
        """Does somebody wait for a name?"""
        with suppress(OSError):
            fd = os.open(self._flag_path(name), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(fd)
        return False

    def _flag_path(self, name: str) -> Path:
        return self._directory / sha256_hex(f"flag: {name}".encode())[:32]

    def sweep(self) -> None:
        """Remove what killed processes left of locks whose work nobody has to do again."""
        with suppress(OSError):
            for path in list(self._directory.iterdir()):
                fd, holder = _try_lock(path)
                if not holder:
                    with Held() as held:
                        held.add(path, fd)

    def _add(self, held: Held, name: str) -> str:
        """Lock one name; who has it when that is somebody else."""
        path = self._directory / sha256_hex(name.encode())[:32]
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            fd, holder = _try_lock(path)
        except OSError as error:
            hint = "choose another directory with --cache"
            raise StoreError("CACHE", f"cannot lock {path}: {error.strerror}", hint=hint) from error
        if holder:
            return holder
        held.add(path, fd)
        with suppress(OSError):  # only so that a waiter can say for whom; a full disk must not matter here
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return ""


def _try_lock(path: Path) -> tuple[int, str]:
    """A locked descriptor of the file that stands at `path`; or who has locked it, and no descriptor."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands_at(fd, path):
                return fd, ""
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            return -1, holder or "another process"
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its last holder has removed it; the next round makes a new one


def _stands_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
