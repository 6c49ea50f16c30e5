"""Save, and it is built: with real files and real events."""

from __future__ import annotations

import os
import queue
import random
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from modelbuild.engine.build import BuildRequest, LoadedPlan
from modelbuild.engine.runner import RunSummary
from modelbuild.events import ActionProgress, Emit, ignore_event
from modelbuild.store.state import State
from modelbuild.watch.debounce import Debouncer
from modelbuild.watch.loop import Round, WatchLoop, WatchOptions
from tests.small_gguf import projector_keys, write_gguf
from tests.space import Space

RECIPE = """models:
  a: {from: 'big:120b', remote_host: 'https://models.example.com', system: {file: texts/system.txt}}
  b: {from: 'big:120b', remote_host: 'https://models.example.com', system: Fixed.}
"""
_PATIENCE_S = 20.0


class Watching:
    """A loop in a thread; rounds come through a queue."""

    def __init__(self, space: Space, options: WatchOptions) -> None:
        self.rounds: queue.Queue[Round] = queue.Queue()
        self._stopped = False
        request = BuildRequest(space.root / "recipe.yaml", space.store, space.cache)

        def run() -> None:
            state = State(space.cache)
            self._loop = WatchLoop(request, state, ignore_event, self._take, options)
            try:
                self._loop.run()
            except InterruptedError:
                pass
            finally:
                state.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        self.next()

    def _take(self, done: Round) -> None:
        if self._stopped:
            raise InterruptedError
        self.rounds.put(done)

    def next(self) -> Round:
        """The next round."""
        return self.rounds.get(timeout=_PATIENCE_S)

    def none_within(self, seconds: float) -> bool:
        """Is no round coming for this long?"""
        try:
            self.rounds.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def stop(self, recipe: Path) -> None:
        """End the loop with a last edit."""
        self._stopped = True
        recipe.write_text(recipe.read_text() + "\n")
        self._thread.join(_PATIENCE_S)


@pytest.fixture(params=[WatchOptions(sweep_s=60), WatchOptions(poll=True, sweep_s=60)], ids=["events", "polling"])
def watching(space: Space, request: pytest.FixtureRequest) -> Iterator[tuple[Space, Watching]]:
    """A built recipe that is being watched."""
    space.write("texts/system.txt", "One.")
    recipe = space.recipe(RECIPE)
    loop = Watching(space, request.param)
    yield space, loop
    recipe.write_text(RECIPE)
    loop.stop(recipe)


def _prompt_of_a(space: Space) -> str:
    return space.run("show", "a", "--system").stdout


def test_save_builds_what_it_touches(watching: tuple[Space, Watching]) -> None:
    """An edit of a text rebuilds the one model that uses it."""
    space, loop = watching
    space.write("texts/system.txt", "Two.")

    done = loop.next()

    assert (("a:latest",), "", "Two.") == (done.built, done.failure, _prompt_of_a(space))


def test_atomic_rename_is_a_save(watching: tuple[Space, Watching]) -> None:
    """Editors write beside a file and rename."""
    space, loop = watching
    space.write("texts/.system.tmp", "Three.")
    os.rename(space.root / "texts" / ".system.tmp", space.root / "texts" / "system.txt")

    assert ("a:latest",) == loop.next().built


def test_broken_recipe_shows_errors_and_recovers(watching: tuple[Space, Watching]) -> None:
    """Errors carry positions; the next good save builds again."""
    space, loop = watching
    space.recipe(RECIPE.replace("Fixed.", "[Broken"))
    assert "recipe.yaml:" in loop.next().failure

    space.recipe(RECIPE.replace("Fixed.", "Mended."))

    assert (("b:latest",), "") == ((done := loop.next()).built, done.failure)


def test_touching_builds_nothing(watching: tuple[Space, Watching]) -> None:
    """A new time on equal content runs no action, and our own writes wake nobody."""
    space, loop = watching
    os.utime(space.root / "texts" / "system.txt")
    try:
        ran = loop.rounds.get(timeout=2.0).ran
    except queue.Empty:
        ran = 0

    assert 0 == ran
    assert loop.none_within(0.5)


def test_directory_that_goes_and_comes_back_is_followed(watching: tuple[Space, Watching]) -> None:
    """Moving the directory of an input away is an error with a place; back with other content it is built."""
    space, loop = watching
    os.rename(space.root / "texts", space.root / "elsewhere")
    assert "system.txt" in loop.next().failure

    (space.root / "elsewhere" / "system.txt").write_text("Four.")
    os.rename(space.root / "elsewhere", space.root / "texts")

    done = loop.next()
    while done.failure:
        done = loop.next()
    assert "Four." == _prompt_of_a(space)
    space.write("texts/system.txt", "Five.")
    loop.next()
    assert "Five." == _prompt_of_a(space)


def test_burst_of_events_is_one_build(space: Space) -> None:
    """Ten thousand writes in a row end in one build of the last state."""
    space.write("texts/system.txt", "One.")
    recipe = space.recipe(RECIPE)
    loop = Watching(space, WatchOptions(sweep_s=60))
    try:
        with (space.root / "texts" / "system.txt").open("w") as file:
            for _ in range(10_000):
                file.seek(0)
                file.write("Burst")
                file.flush()

        rounds = [loop.next()]
        while not loop.none_within(0.7):
            rounds.append(rounds[0])
        assert 1 == len(rounds)
        assert "Burst" == _prompt_of_a(space)
    finally:
        loop.stop(recipe)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_random_edits_end_in_the_state_of_a_clean_build(space: Space, tmp_path: Path, seed: int) -> None:
    """Whatever sequence of saves, renames, deletions and touches: the end equals a build from nothing."""
    text = space.write("texts/system.txt", "start")
    recipe = space.recipe(RECIPE)
    loop = Watching(space, WatchOptions(sweep_s=0.5))
    choice = random.Random(seed)
    try:
        for number in range(200):
            action = choice.choice(["write", "rename", "recreate", "touch", "move"])
            if action == "write":
                text.write_text(f"{seed} {number}")
            elif action == "rename":
                space.write("texts/new", f"{seed} {number}").rename(text)
            elif action == "recreate":
                text.unlink()
                text.write_text(f"{seed} {number} again")
            elif action == "touch":
                os.utime(text)
            else:
                os.rename(space.root / "texts", space.root / "away")
                os.rename(space.root / "away", space.root / "texts")
        text.write_text(f"the end of {seed}")
        waited = 0
        while _prompt_of_a(space) != f"the end of {seed}" and waited < 40:
            loop.none_within(0.25)
            waited += 1
        assert f"the end of {seed}" == _prompt_of_a(space)
    finally:
        loop.stop(recipe)
    other = Space(tmp_path / "other")
    shutil.copytree(space.root / "texts", other.root / "texts")
    other.recipe(recipe.read_text())
    other.build()
    assert {path for path in other.files() if "manifests" in path} == {
        path for path in space.files() if "manif" in path
    }
    assert other.blobs() <= space.blobs()


def test_builds_of_others_are_not_repeated(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another process was faster with the same cache, there is nothing left to do."""
    monkeypatch.setattr("modelbuild.watch.loop.Debouncer", partial(Debouncer, 1.5, 3.0))
    space.write("texts/system.txt", "One.")
    recipe = space.recipe(RECIPE)
    loop = Watching(space, WatchOptions(sweep_s=60))
    try:
        space.write("texts/system.txt", "Two.")
        space.build()

        try:
            done = loop.rounds.get(timeout=3.0)
        except queue.Empty:
            done = None
        assert done is None or (0, ()) == (done.ran, done.built)
        assert "Two." == _prompt_of_a(space)
    finally:
        loop.stop(recipe)


def test_long_build_of_replaced_inputs_is_stopped_and_followed_by_one(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save during a build that has long to go ends it; the next one builds the last state, and no third follows."""
    import modelbuild.watch.loop as module

    space.write("texts/system.txt", "One.")
    recipe = space.recipe(RECIPE)
    loop = Watching(space, WatchOptions(sweep_s=60))
    real, calls = module.build_plan, []

    def slow(loaded: LoadedPlan, request: BuildRequest, state: State, emit: Emit) -> RunSummary:
        calls.append(None)
        for done in range(1, 100) if len(calls) == 1 else ():
            emit(ActionProgress("x", done, 10_000))
            if done == 2:
                space.write("texts/system.txt", "Three.")
            time.sleep(0.05)
        return real(loaded, request, state, emit)

    monkeypatch.setattr(module, "build_plan", slow)
    try:
        space.write("texts/system.txt", "Two.")

        assert "stopped" in loop.next().failure
        assert ("", ("a:latest",)) == ((done := loop.next()).failure, done.built)
        assert "Three." == _prompt_of_a(space)
        assert loop.none_within(1.0)
    finally:
        loop.stop(recipe)


def test_missing_include_is_noticed_when_it_appears(space: Space) -> None:
    """A file that a broken recipe lacks may lie where nothing was watched; it recovers all the same."""
    space.write("texts/system.txt", "One.")
    recipe = space.recipe(RECIPE)
    loop = Watching(space, WatchOptions(sweep_s=0.5))
    try:
        space.recipe("include: [parts/more.yaml]\n" + RECIPE)
        assert "more.yaml" in loop.next().failure
        assert loop.none_within(1.2)
        space.write("parts/more.yaml", "models: {c: {from: 'big:120b', remote_host: 'https://models.example.com'}}\n")

        assert ("", ("c:latest",)) == ((done := loop.next()).failure, done.built)
    finally:
        loop.stop(recipe)


def test_retargeted_link_is_a_change(space: Space) -> None:
    """A symbolic link that leads to another file is followed to it, also to later saves there."""
    space.write("one/text", "One.")
    space.write("two/text", "Two.")
    (space.root / "texts").mkdir()
    link = space.root / "texts" / "system.txt"
    link.symlink_to("../one/text")
    recipe = space.recipe(RECIPE)
    loop = Watching(space, WatchOptions(sweep_s=60))
    try:
        (space.root / "new").symlink_to("../two/text")
        os.rename(space.root / "new", link)
        loop.next()
        assert "Two." == _prompt_of_a(space)

        space.write("two/text", "Three.")
        loop.next()
        assert "Three." == _prompt_of_a(space)
    finally:
        loop.stop(recipe)


def test_patterns_gain_and_lose_files(space: Space) -> None:
    """A directory that a pattern looks into is part of what is watched."""
    space.write("parts/model.gguf", write_gguf())
    recipe = space.recipe("models: {a: {files: ['parts/*.gguf']}}\n")
    loop = Watching(space, WatchOptions(sweep_s=60))
    try:
        gained = space.write(
            "parts/mmproj.gguf", write_gguf(projector_keys(typed=True), {"v.patch_embd.weight": (4, 32)})
        )
        assert ("", ("a:latest",)) == ((done := loop.next()).failure, done.built)

        gained.unlink()
        assert ("", ("a:latest",)) == ((done := loop.next()).failure, done.built)
    finally:
        loop.stop(recipe)
