"""Saves while a watch converts a checkpoint: what is of no use any more is left, everything else is finished."""

from __future__ import annotations

import os
import queue
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from modelbuild.engine import packing
from modelbuild.events import ActionProgress, ActionStarted, Event, Warned
from modelbuild.watch.loop import Round
from tests.checkpoints import llama_config, llama_tensors, write_checkpoint, write_safetensors
from tests.space import Space
from tests.watching import Watching, watching

BLOCKS = 8
RECIPE = """models:
  a: {from: ./weights, quantize: q8_0, system: {file: system.txt}}
"""
#: A recipe of the same place before there is anything long to do.
BEFORE = """models:
  b: {from: 'big:120b', remote_host: 'https://models.example.com'}
"""


@pytest.fixture
def place(space: Space) -> Space:
    """A checkpoint with many tensors, and a recipe that does not use it yet."""
    write_checkpoint(space.root / "weights", llama_config(num_hidden_layers=BLOCKS), llama_tensors(blocks=BLOCKS))
    space.write("system.txt", "One.")
    space.recipe(BEFORE)
    return space


@pytest.fixture(autouse=True)
def _slow_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast the machine, a conversion takes seconds; only its pace is changed."""
    pack = packing.pack

    def pack_slowly(*given: Any, **options: Any) -> Any:
        time.sleep(0.08)
        return pack(*given, **options)

    monkeypatch.setattr(packing, "pack", pack_slowly)


def _begin_converting(loop: Watching, space: Space) -> None:
    """Save the recipe that wants the checkpoint, and wait until it is being packed."""
    loop.events.clear()
    space.recipe(RECIPE)
    loop.wait_for_event(lambda event: isinstance(event, ActionStarted) and event.kind == "assemble")
    loop.wait_for_event(lambda event: isinstance(event, ActionProgress) and 0 < event.done_bytes < event.total_bytes)


def _replace_weights(space: Space, seed: int) -> None:
    """Other values of the same names and shapes, in one step."""
    write_safetensors(space.root / "new", llama_tensors(blocks=BLOCKS), seed)
    (space.root / "new").rename(space.root / "weights" / "model.safetensors")


def _started(events: list[Event]) -> Counter[str]:
    return Counter(event.kind for event in events if isinstance(event, ActionStarted))


def _clean_blobs(space: Space, root: Path) -> set[str]:
    """The blobs of a build from nothing of what the recipe needs now."""
    clean = Space(root / "clean")
    clean.root.mkdir()
    for name in ("weights", "system.txt", "recipe.yaml"):
        (clean.root / name).symlink_to(space.root / name)
    clean.build()
    return clean.blobs()


def test_conversion_of_replaced_weights_is_stopped_and_followed_by_one(place: Space, tmp_path: Path) -> None:
    """It ends before its time; the next is of the new weights; there is no third."""
    with watching(place) as loop:
        _begin_converting(loop, place)
        _replace_weights(place, seed=2)

        stopped, following = loop.next(), loop.next()

        assert (True, "stopped, weights/model.safetensors changed meanwhile") == (stopped.is_stopped, stopped.failure)
        assert stopped.seconds < following.seconds
        assert ("", ("a:latest",)) == (following.failure, following.built)
        assert loop.none_within(1.0)
        assert Counter(assemble=2, text=1, publish=1) == _started(loop.events)
    assert _clean_blobs(place, tmp_path) <= place.blobs()


def test_conversion_that_is_nearly_done_is_finished_and_followed_by_one(
    place: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less to go than stopping is worth, the old weights are finished, then the new ones are converted, once."""
    monkeypatch.setattr("modelbuild.watch.stale.WORTH_STOPPING_S", 3600.0)
    with watching(place) as loop:
        _begin_converting(loop, place)
        _replace_weights(place, seed=2)

        finished, following = loop.next(), loop.next()

        assert ("", ("a:latest",)) == (finished.failure, finished.built)
        assert ("", ("a:latest",)) == (following.failure, following.built)
        assert loop.none_within(1.0)
    assert _clean_blobs(place, tmp_path) <= place.blobs()


class _ResettingTime(queue.Queue[Round]):
    """Rounds of a loop; a file has its old time again before the loop looks for the first time after a round."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._before = path, path.stat()

    def put(self, item: Round, block: bool = True, timeout: float | None = None) -> None:
        """Take a round from the thread of the loop."""
        os.utime(self._path, ns=(self._before.st_atime_ns, self._before.st_mtime_ns))
        super().put(item, block, timeout)


def test_a_stopped_build_is_made_up_for_even_if_all_looks_as_before(place: Space) -> None:
    """Touched weights stop their conversion, then look as if nothing had been: it is no failure to stay with."""
    weights = place.root / "weights" / "model.safetensors"
    with watching(place) as loop:
        loop.rounds = _ResettingTime(weights)
        _begin_converting(loop, place)
        os.utime(weights)

        stopped, following = loop.next(), loop.next()

        assert stopped.is_stopped
        assert ("", ("a:latest",)) == (following.failure, following.built)


@pytest.mark.parametrize("name", ["system.txt", "recipe.yaml"])
def test_conversion_goes_on_when_only_a_prompt_was_saved(place: Space, name: str) -> None:
    """The weights are of use whatever the prompt says; exactly one build follows and converts nothing."""
    with watching(place) as loop:
        _begin_converting(loop, place)
        place.write(name, {"system.txt": "Two.", "recipe.yaml": RECIPE.replace("{file: system.txt}", "Two.")}[name])

        finished, following = loop.next(), loop.next()

        assert ("", "") == (finished.failure, following.failure)
        assert Counter(assemble=1, text=2, publish=2) == _started(loop.events)
        assert "Two." == place.run("show", "a", "--system").stdout
        assert loop.none_within(1.0)


def test_conversion_to_a_type_that_is_not_wanted_any_more_is_stopped(place: Space) -> None:
    """The recipe names another type: what is being made would be of no use."""
    with watching(place) as loop:
        _begin_converting(loop, place)
        place.recipe(RECIPE.replace("q8_0", "q4_0"))

        assert "stopped, recipe.yaml changed meanwhile" == loop.next().failure
        assert ("", ("a:latest",)) == ((done := loop.next()).failure, done.built)
        assert loop.none_within(1.0)


def test_a_recipe_that_breaks_meanwhile_is_reported_at_once(place: Space) -> None:
    """The error is shown while the conversion goes on, which the mended recipe then uses."""
    with watching(place) as loop:
        _begin_converting(loop, place)
        place.recipe(RECIPE.replace("q8_0", "q8_1000"))

        loop.wait_for_event(lambda event: isinstance(event, Warned) and "recipe.yaml:2" in event.message)
        assert loop.rounds.empty()
        assert "" == loop.next().failure
        assert "recipe.yaml:2" in loop.next().failure

        place.recipe(RECIPE)
        assert ("", 0) == ((done := loop.next()).failure, done.ran)
        assert 1 == _started(loop.events)["assemble"]
