"""Which events of the system become hints."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.events import (
    FileClosedEvent,
    FileClosedNoWriteEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileOpenedEvent,
    FileSystemEvent,
)

from modelbuild.watch.notifier import Notifier
from modelbuild.watch.watch_set import WatchSet


@pytest.fixture
def notifier(tmp_path: Path) -> Iterator[Notifier]:
    """One that listens for text.txt."""
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
