"""Weights that arrive slowly: nothing is built of a part of a file, and the whole is built once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from watchdog.events import FileSystemEvent

from modelbuild.digest import digest_of
from modelbuild.watch.loop import WatchOptions
from modelbuild.watch.notifier import Notifier
from tests.small_gguf import projector_keys, write_gguf
from tests.space import Space
from tests.watching import BY_EVENTS, BY_POLLING, watching

#: Longer than a burst of events may pause, and shorter than a file has to rest where nothing tells of closing.
PAUSE_S = 0.3
PIECES = 6


def _copy_slowly(data: bytes, target: Path) -> None:
    """As a copy from a slow disk does it: piece by piece into the file itself."""
    step = -(-len(data) // PIECES)
    with target.open("wb", buffering=0) as file:
        for start in range(0, len(data), step):
            file.write(data[start : start + step])
            time.sleep(PAUSE_S)


@pytest.mark.parametrize("options", [BY_EVENTS, BY_POLLING], ids=["events", "polling"])
def test_weights_that_are_copied_slowly_are_built_once(space: Space, options: WatchOptions) -> None:
    """Other weights in the place of an input: no attempt before they are complete, one afterwards."""
    weights = space.write("base.gguf", write_gguf())
    space.recipe("models: {a: {from: ./base.gguf}}\n")
    other = write_gguf(seed=2)
    with watching(space, options) as loop:
        weights.unlink()
        _copy_slowly(other, weights)
        assert loop.rounds.empty()

        assert ("", ("a:latest",)) == ((done := loop.next()).failure, done.built)
        assert digest_of(other).replace(":", "-") in space.blobs()
        assert loop.none_within(1.5)


@pytest.mark.parametrize("options", [BY_EVENTS, BY_POLLING], ids=["events", "polling"])
def test_a_file_that_a_pattern_finds_is_waited_for(space: Space, options: WatchOptions) -> None:
    """A projector that is copied slowly into the directory of a pattern."""
    space.write("parts/model.gguf", write_gguf())
    space.recipe("models: {a: {files: ['parts/*.gguf']}}\n")
    projector = write_gguf(projector_keys(typed=True), {"v.patch_embd.weight": (4, 32)})
    with watching(space, options) as loop:
        _copy_slowly(projector, space.root / "parts" / "mmproj.gguf")
        assert loop.rounds.empty()

        assert ("", ("a:latest",)) == ((done := loop.next()).failure, done.built)
        assert digest_of(projector).replace(":", "-") in space.blobs()
        assert loop.none_within(1.5)


def test_a_file_that_only_its_directory_tells_of_is_waited_for(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """When polling, the hint about a directory may come long before that about the file in it."""
    take = Notifier.on_any_event

    def take_directories(self: Notifier, event: FileSystemEvent) -> None:
        if not str(event.src_path).endswith("mmproj.gguf"):
            take(self, event)

    monkeypatch.setattr(Notifier, "on_any_event", take_directories)
    test_a_file_that_a_pattern_finds_is_waited_for(space, BY_POLLING)
