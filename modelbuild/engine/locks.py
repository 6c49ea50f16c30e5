"""One process at a time per action: kernel locks in the cache directory, which a killed process cannot leave behind."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from modelbuild.errors import StoreError

LOCK_DIRECTORY = "locks"

#: Called with the process id of the holder, as text, when a lock is not free at once.
OnWait = Callable[[str], None]
#: Called while a lock is waited for; may end the waiting by an exception.
Check = Callable[[], None]
#: A lock is tried again after so long, and after twice as long each time, up to the second number.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.005, 0.2


class ActionLocks:
    """The locks of one cache directory; readers of results need none."""

    def __init__(self, cache: Path) -> None:
        self._directory = cache / LOCK_DIRECTORY

    @contextmanager
    def hold(self, names: Sequence[str], on_wait: OnWait, check: Check) -> Iterator[bool]:
        """Hold the locks of several names; yields whether another process had to be waited for.

        They are taken in sorted order, so that two processes cannot wait for each other.
        """
        waited = False
        with ExitStack() as stack:
            for name in sorted(set(names)):
                waited |= stack.enter_context(self._hold_one(name, on_wait, check))
            yield waited

    @contextmanager
    def _hold_one(self, name: str, on_wait: OnWait, check: Check) -> Iterator[bool]:
        path = self._directory / hashlib.sha256(name.encode()).hexdigest()[:32]
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            fd, waited = _lock(path, on_wait, check)
        except OSError as error:
            hint = "choose another directory with --cache"
            raise StoreError("CACHE", f"cannot lock {path}: {error.strerror}", hint=hint) from error
        try:
            with suppress(OSError):  # only so that a waiter can say for whom; a full disk must not matter here
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield waited
        finally:
            with suppress(OSError):
                path.unlink()
            os.close(fd)


def _lock(path: Path, on_wait: OnWait, check: Check) -> tuple[int, bool]:
    """A locked descriptor of the file that stands at `path`, and whether that took waiting."""
    waited = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                on_wait(os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "another process")
                _wait(fd, check)
            if _stands_at(fd, path):
                return fd, waited
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its last holder has removed it; the next round makes a new one


def _stands_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _wait(fd: int, check: Check) -> None:
    """Lock a file that somebody else has locked; asked for again and again, since a blocked thread cannot be ended."""
    pause_s = _FIRST_PAUSE_S
    while True:
        check()
        time.sleep(pause_s)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)
        else:
            return
