"""Which events of the system become hints."""

from __future__ import annotations

import errno
import logging
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from watchdog.events import (
    FileClosedEvent,
    FileClosedNoWriteEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileOpenedEvent,
    FileSystemEvent,
)
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.polling import PollingObserver

from modelbuild.watch.notifier import Notifier, mounts, remote_directory
from modelbuild.watch.watch_set import WatchSet


@pytest.fixture
def notifier(tmp_path: Path) -> Iterator[Notifier]:
    """One that listens for text.txt, beside which there is a directory already."""
    (tmp_path / "texts").mkdir()
    found = Notifier(poll=False, say=lambda _: None)
    found.follow(WatchSet.of([tmp_path / "text.txt"], [], []))
    yield found
    found.close()


def _paths(notifier: Notifier) -> list[Path]:
    found = []
    while True:
        try:
            found.append(notifier.paths.get(timeout=0))
        except queue.Empty:
            return found


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (FileModifiedEvent, ["text.txt"]),
        (FileClosedEvent, ["text.txt"]),
        (FileOpenedEvent, []),
        (FileClosedNoWriteEvent, []),
    ],
)
def test_reading_a_file_is_no_hint(
    notifier: Notifier, tmp_path: Path, event: type[FileSystemEvent], expected: list[str]
) -> None:
    """Only what may change it is; otherwise our own reading would wake us for ever."""
    notifier.on_any_event(event(str(tmp_path / "text.txt")))

    assert [tmp_path / name for name in expected] == _paths(notifier)


def test_lost_events_are_a_hint_and_no_line_on_the_screen(notifier: Notifier) -> None:
    """Where the kernel's queue was too short anything may have changed; Python shows what no handler takes."""
    logger = logging.getLogger("watchdog.observers.inotify_c")
    logger.warning("Inotify queue overflowed; filesystem events were lost")
    assert (1, 1) == (len(_paths(notifier)), len(logging.getLogger("watchdog").handlers))

    notifier.close()
    logger.warning("of another watch")

    assert ([], []) == (_paths(notifier), logging.getLogger("watchdog").handlers)


def test_both_ends_of_a_move_are_hints(notifier: Notifier, tmp_path: Path) -> None:
    """A file that takes the place of an input is one, wherever it comes from; moves of others are none."""
    notifier.on_any_event(FileMovedEvent(str(tmp_path / "new"), str(tmp_path / "text.txt")))
    notifier.on_any_event(FileMovedEvent(str(tmp_path / "text.txt"), str(tmp_path / "old")))
    notifier.on_any_event(FileMovedEvent(str(tmp_path / "a"), str(tmp_path / "b")))

    assert [tmp_path / "text.txt"] * 2 == _paths(notifier)


@pytest.mark.parametrize("event", [FileClosedEvent, None])
def test_a_file_is_open_until_it_is_closed_or_replaced(
    notifier: Notifier, tmp_path: Path, event: type[FileSystemEvent] | None
) -> None:
    """What was written and not closed since is open; what was moved into its place is another file."""
    text = tmp_path / "text.txt"
    notifier.on_any_event(FileModifiedEvent(str(text)))
    assert ([text] if notifier.tells_closing else []) == notifier.open_files()

    notifier.on_any_event(event(str(text)) if event else FileMovedEvent(str(tmp_path / "new"), str(text)))

    assert [] == notifier.open_files()


def test_a_directory_that_vanished_is_looked_at_soon(
    notifier: Notifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it cannot be listened to is a hint like any other; it is listened to after the next look."""
    place = tmp_path / "texts"
    files = WatchSet.of([place / "text.txt"], [], [])
    with monkeypatch.context() as patch:
        patch.setattr("watchdog.observers.api.BaseObserver.schedule", _vanish)
        notifier.follow(files)
    assert [place] == _paths(notifier)

    notifier.refresh()
    (place / "text.txt").write_text("Two.")

    assert place / "text.txt" == notifier.paths.get(timeout=30)


def test_a_limit_that_is_reached_half_way_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was listened to before is looked at too from then on; that is said once."""
    real, allowed, said = BaseObserver.schedule, [1], list[str]()

    def limited(self: BaseObserver, *given: Any, **options: Any) -> ObservedWatch:
        if not isinstance(self, PollingObserver) and not allowed:
            raise OSError(errno.ENOSPC, "no more watches")
        allowed.clear()
        return real(self, *given, **options)

    monkeypatch.setattr(BaseObserver, "schedule", limited)
    files = [tmp_path / name / "text.txt" for name in ("a", "b", "c")]
    for file in files:
        file.parent.mkdir()
        file.write_text("One.")
    notifier = Notifier(poll=False, say=said.append)
    try:
        notifier.follow(WatchSet.of(files, [], []))
        for file in files:
            file.write_text("Two, and longer.")
        found: set[Path] = set()
        while not found >= set(files):
            found.add(notifier.paths.get(timeout=30))
    finally:
        notifier.close()

    assert [f"{files[1].parent} cannot be watched (no more watches); looking for changes every 0.5 s instead"] == said


def _vanish(*_: object, **__: object) -> None:
    raise FileNotFoundError


@pytest.mark.parametrize(
    ("directory", "is_remote"),
    [
        ("/net/texts", True),
        ("/net/local/texts", False),
        ("/with space\\/texts", True),
        ("/caf\udce9/texts", True),
        ("/over/texts", False),
        ("/network", False),
    ],
)
def test_network_file_systems_are_told_apart(tmp_path: Path, directory: str, is_remote: bool) -> None:
    """The innermost mount counts, of several on one place the last, whatever bytes its name is made of."""
    table = tmp_path / "mounts"
    table.write_bytes(
        b"/dev/a / ext4 rw 0 0\nhost:/a /net nfs4 rw 0 0\n/dev/b /net/local ext4 rw 0 0\n"
        b"host:/b /with\\040space\\134 nfs rw 0 0\nhost:/c /caf\xe9 cifs rw 0 0\n"
        b"host:/d /over nfs rw 0 0\n/dev/c /over ext4 rw 0 0\n"
    )

    found = remote_directory(frozenset({Path(directory)}), mounts(table))

    assert (Path(directory) if is_remote else None) == found
