"""File system events from watchdog, filtered to those that can matter; polling where there is no notification."""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver, ObservedWatch

from modelbuild.watch.watch_set import WatchSet

#: What reading a file causes; never a reason to build.
_IGNORED_EVENTS = frozenset({"opened", "closed_no_write"})
#: After these a file is not the one that was being written, or nobody writes it any more.
_WRITTEN_EVENTS = frozenset({"closed", "created", "deleted", "moved"})
_POLL_INTERVAL_S = 0.5
#: A file that was written without being closed is waited for so long: a program may keep it open for good.
_LONGEST_OPEN_S = 5.0
#: File systems whose changes by other machines the kernel does not report.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"}
)
#: How the table of mounts writes spaces and backslashes.
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


class Notifier(FileSystemEventHandler):
    """Puts paths that matter into a queue; `follow` changes what is listened to."""

    def __init__(self, *, poll: bool, say: Callable[[str], None]) -> None:
        self.paths: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._say = say
        self._poll = poll
        self._set = WatchSet(frozenset(), frozenset())
        self._watches: dict[Path, ObservedWatch] = {}
        self._identities: dict[Path, tuple[int, int] | None] = {}
        self._lost: set[Path] = set()
        self._open_since_s: dict[Path, float] = {}
        self._warnings = _Warnings(self._look_again)
        self._observer = self._start()
        logging.getLogger("watchdog").addHandler(self._warnings)

    def follow(self, watch_set: WatchSet) -> None:
        """Listen for this set from now on."""
        self._set = watch_set
        wanted = watch_set.watched
        if not self._poll and (remote := remote_directory(wanted, mounts())) is not None:
            self._fall_back(f"{remote} is on a network file system")
        for path in [path for path in self._watches if path not in wanted or self._is_lost(path)]:
            self._unschedule(path)
        for path in sorted(wanted - self._watches.keys()):
            self._schedule(path)

    def refresh(self) -> None:
        """Listen again to directories that were replaced since: a watch belongs to the old one."""
        self.follow(self._set)

    def close(self) -> None:
        """Stop listening."""
        logging.getLogger("watchdog").removeHandler(self._warnings)
        self._stop()

    @property
    def tells_closing(self) -> bool:
        """Is it known when a writer is done? Only Linux reports that a file was closed."""
        return sys.platform == "linux" and not self._poll

    def open_files(self) -> list[Path]:
        """Inputs that somebody has written to a moment ago and not closed since."""
        oldest_s = time.monotonic() - _LONGEST_OPEN_S
        return [path for path, since_s in list(self._open_since_s.items()) if since_s > oldest_s]

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread."""
        if event.event_type in _IGNORED_EVENTS:
            return
        self._note_writing(event)
        for text in (event.src_path, event.dest_path):
            path = Path(os.fsdecode(text)) if text else None
            if path is None:
                continue
            if path in self._watches and event.event_type != "modified":
                self._lost.add(path)
            if self._set.concerns(path):
                self.paths.put(path)

    def _note_writing(self, event: FileSystemEvent) -> None:
        """Keep in mind which inputs are being written."""
        path = Path(os.fsdecode(event.src_path))
        if event.event_type in _WRITTEN_EVENTS:
            self._open_since_s.pop(path, None)
            if event.dest_path:
                self._open_since_s.pop(Path(os.fsdecode(event.dest_path)), None)
        elif self._is_writing(event) and self._set.concerns(path):
            self._open_since_s[path] = time.monotonic()

    def _is_writing(self, event: FileSystemEvent) -> bool:
        return event.event_type == "modified" and not event.is_directory and self.tells_closing

    def _look_again(self) -> None:
        """Events were lost, so anything may have happened: it is looked as after an event."""
        for path in list(self._watches)[:1]:
            self.paths.put(path)

    def _stop(self) -> None:
        self._observer.stop()
        self._observer.join()

    def _start(self) -> BaseObserver:
        try:
            observer = self._observer_class()()
        except OSError as error:  # not one listener more is allowed
            self._say_polling(f"the system cannot tell of changes ({error.strerror})")
            observer = self._observer_class()()
        observer.start()
        return observer

    def _observer_class(self) -> Callable[[], BaseObserver]:
        if self._poll:
            from watchdog.observers.polling import PollingObserver

            return partial(PollingObserver, timeout=_POLL_INTERVAL_S)
        from watchdog.observers import Observer

        return Observer

    def _is_lost(self, path: Path) -> bool:
        return path in self._lost or _identity(path) != self._identities.get(path)

    def _schedule(self, path: Path) -> None:
        self._identities[path] = _identity(path)
        self._lost.discard(path)
        try:
            self._watches[path] = self._observer.schedule(self, str(path), recursive=False)
        except (FileNotFoundError, NotADirectoryError):
            self.paths.put(path)  # it vanished meanwhile: what is there instead is looked at as after an event
        except OSError as error:
            if self._poll:
                return  # the sweep will notice
            self._fall_back(f"{path} cannot be watched ({error.strerror})")
            self._schedule(path)

    def _unschedule(self, path: Path) -> None:
        watch = self._watches.pop(path)
        try:
            self._observer.unschedule(watch)
        except (KeyError, OSError):
            return  # the directory is gone, and its watch with it

    def _fall_back(self, why: str) -> None:
        """Listen by polling to what was listened to."""
        self._stop()
        self._say_polling(why)
        known, self._watches = list(self._watches), {}
        self._observer = self._start()
        for path in known:
            self._schedule(path)

    def _say_polling(self, why: str) -> None:
        """From now on we poll; said once, as it happens once."""
        self._say(f"{why}; looking for changes every {_POLL_INTERVAL_S:g} s instead")
        self._poll = True


class _Warnings(logging.Handler):
    """Takes what watchdog warns of, which is that the kernel's queue was too short, from the user's screen."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        """Called by watchdog's thread."""
        del record
        self._act()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remote_directory(directories: frozenset[Path], kinds: Mapping[str, str]) -> Path | None:
    """One of these directories that is on a network file system; kinds: of the file system by where it is mounted."""
    for directory in sorted(directories):
        place = next((str(path) for path in (directory, *directory.parents) if str(path) in kinds), "")
        if kinds.get(place) in _NETWORK_FILE_SYSTEMS:
            return directory
    return None


def mounts(table: Path = Path("/proc/mounts")) -> Mapping[str, str]:
    """Kinds of file systems by where they are mounted; none where the system does not tell."""
    try:
        rows = [line.split(b" ") for line in table.read_bytes().split(b"\n") if line]
    except OSError:
        return {}
    return {os.fsdecode(_ESCAPED.sub(_unescape, row[1])): os.fsdecode(row[2]) for row in rows}


def _unescape(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])
