"""Save, and it is built: with real files and real events."""

from __future__ import annotations

import os
import queue
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver, ObservedWatch

from modelbuild.events import Warned
from modelbuild.watch.debounce import Debouncer
from modelbuild.watch.loop import Round, WatchOptions
from tests.small_gguf import projector_keys, write_gguf
from tests.space import Space
from tests.watching import BY_EVENTS, BY_POLLING, Watching, watching

RECIPE = """models:
  a: {from: 'big:120b', remote_host: 'https://models.example.com', system: {file: texts/system.txt}}
  b: {from: 'big:120b', remote_host: 'https://models.example.com', system: Fixed.}
"""


@pytest.fixture(params=[BY_EVENTS, BY_POLLING], ids=["events", "polling"])
def place(space: Space, request: pytest.FixtureRequest) -> Iterator[tuple[Space, Watching]]:
    """A built recipe that is being watched."""
    space.write("texts/system.txt", "One.")
    space.recipe(RECIPE)
    with watching(space, request.param) as loop:
        yield space, loop


def _prompt_of_a(space: Space) -> str:
    return space.run("show", "a", "--system").stdout


def test_save_builds_what_it_touches(place: tuple[Space, Watching]) -> None:
    """An edit of a text rebuilds the one model that uses it."""
    space, loop = place
    space.write("texts/system.txt", "Two.")

    done = loop.next()

    assert (("a:latest",), "", "Two.") == (done.built, done.failure, _prompt_of_a(space))


def test_atomic_rename_is_a_save(place: tuple[Space, Watching]) -> None:
    """Editors write beside a file and rename."""
    space, loop = place
    space.write("texts/.system.tmp", "Three.")
    os.rename(space.root / "texts" / ".system.tmp", space.root / "texts" / "system.txt")

    assert ("a:latest",) == loop.next().built


def test_broken_recipe_shows_errors_and_recovers(place: tuple[Space, Watching]) -> None:
    """Errors carry positions; the next good save builds again."""
    space, loop = place
    space.recipe(RECIPE.replace("Fixed.", "[Broken"))
    assert "recipe.yaml:" in loop.next().failure

    space.recipe(RECIPE.replace("Fixed.", "Mended."))

    assert (("b:latest",), "") == ((done := loop.next()).built, done.failure)


def test_touching_builds_nothing(place: tuple[Space, Watching]) -> None:
    """A new time on equal content runs no action, and our own writes wake nobody."""
    space, loop = place
    os.utime(space.root / "texts" / "system.txt")
    rounds: list[Round] = []
    with suppress(queue.Empty):
        while len(rounds) < 2:
            rounds.append(loop.rounds.get(timeout=2.0))

    assert len(rounds) < 2
    assert 0 == sum(done.ran for done in rounds)


def test_directory_that_goes_and_comes_back_is_followed(place: tuple[Space, Watching]) -> None:
    """Moving the directory of an input away is an error with a place; back with other content it is built."""
    space, loop = place
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
    space.recipe(RECIPE)
    with watching(space) as loop:
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


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_random_edits_end_in_the_state_of_a_clean_build(space: Space, tmp_path: Path, seed: int) -> None:
    """Whatever sequence of saves, renames, deletions and touches: the end equals a build from nothing."""
    text = space.write("texts/system.txt", "start")
    recipe = space.recipe(RECIPE)
    choice = random.Random(seed)
    with watching(space, WatchOptions(sweep_s=0.5)) as loop:
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
    space.recipe(RECIPE)
    with watching(space) as loop:
        space.write("texts/system.txt", "Two.")
        assert 0 == space.run("build", env={"MODELBUILD_ALLOW_ROOT": ""}).status

        assert loop.none_within(3.0)
        assert "Two." == _prompt_of_a(space)

        space.recipe(RECIPE.replace("Fixed.", "Changed."))
        assert (("recipe.yaml saved",), ("b:latest",)) == ((done := loop.next()).changes, done.built)


def test_missing_include_is_noticed_when_it_appears(space: Space) -> None:
    """A file that a broken recipe lacks may lie where nothing was watched; it recovers all the same."""
    space.write("texts/system.txt", "One.")
    space.recipe(RECIPE)
    with watching(space, WatchOptions(sweep_s=0.5)) as loop:
        space.recipe("include: [parts/more.yaml]\n" + RECIPE)
        assert "more.yaml" in loop.next().failure
        assert loop.none_within(1.2)
        space.write("parts/more.yaml", "models: {c: {from: 'big:120b', remote_host: 'https://models.example.com'}}\n")

        assert ("", ("c:latest",)) == ((done := loop.next()).failure, done.built)


def test_retargeted_link_is_a_change(space: Space) -> None:
    """A symbolic link that leads to another file is followed to it, also to later saves there."""
    space.write("one/text", "One.")
    space.write("two/text", "Two.")
    (space.root / "texts").mkdir()
    link = space.root / "texts" / "system.txt"
    link.symlink_to("../one/text")
    space.recipe(RECIPE)
    with watching(space) as loop:
        (space.root / "new").symlink_to("../two/text")
        os.rename(space.root / "new", link)
        loop.next()
        assert "Two." == _prompt_of_a(space)

        space.write("two/text", "Three.")
        loop.next()
        assert "Three." == _prompt_of_a(space)


def test_patterns_gain_and_lose_files(space: Space) -> None:
    """A directory that a pattern looks into is part of what is watched."""
    space.write("parts/model.gguf", write_gguf())
    space.recipe("models: {a: {files: ['parts/*.gguf']}}\n")
    with watching(space) as loop:
        gained = space.write(
            "parts/mmproj.gguf", write_gguf(projector_keys(typed=True), {"v.patch_embd.weight": (4, 32)})
        )
        assert ("", ("a:latest",)) == ((done := loop.next()).failure, done.built)

        gained.unlink()
        assert ("", ("a:latest",)) == ((done := loop.next()).failure, done.built)


def test_lost_events_are_made_up_for(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look without an event finds what was saved, and says which file it was."""
    monkeypatch.setattr("modelbuild.watch.notifier.Notifier.on_any_event", lambda *_: None)
    space.write("texts/system.txt", "One.")
    space.recipe(RECIPE)
    with watching(space, WatchOptions(sweep_s=0.3)) as loop:
        text = space.write("texts/system.txt", "Two.")

        done = loop.next()
        assert (("texts/system.txt saved",), ("a:latest",)) == (done.changes, done.built)
        assert text in done.changed


def test_directories_are_replaced_far_above_an_input(space: Space) -> None:
    """Another release takes the place of the directory that holds the directory of a text, in one step."""
    space.write("texts/now/deep/system.txt", "One.")
    space.write("texts/next/deep/system.txt", "Two.")
    space.recipe(RECIPE.replace("texts/system.txt", "texts/now/deep/system.txt"))
    texts = space.root / "texts"
    with watching(space) as loop:
        assert loop.none_within(0.5), "what the first build wrote is over"
        os.rename(texts / "now", texts / "old")
        os.rename(texts / "next", texts / "now")
        assert "" == loop.next().failure
        assert "Two." == _prompt_of_a(space)

        space.write("texts/now/deep/system.txt", "Three.")
        loop.next()
        assert "Three." == _prompt_of_a(space)


def test_a_new_include_is_followed(space: Space) -> None:
    """Once the recipe names another file, saves of that file build."""
    parts = "models: {c: {from: 'big:120b', remote_host: 'https://models.example.com', system: %s}}\n"
    space.write("parts/more.yaml", parts % "One.")
    space.write("texts/system.txt", "One.")
    space.recipe(RECIPE)
    with watching(space) as loop:
        space.recipe("include: [parts/more.yaml]\n" + RECIPE)
        assert ("c:latest",) == loop.next().built

        space.write("parts/more.yaml", parts % "Two.")
        assert (("parts/more.yaml saved",), ("c:latest",)) == ((done := loop.next()).changes, done.built)


def test_a_file_that_stays_open_is_built_after_a_while(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that writes and never closes holds nothing up for good; who waits is told for what."""
    monkeypatch.setattr("modelbuild.watch.notifier._LONGEST_OPEN_S", 2.0)
    monkeypatch.setattr("modelbuild.watch.loop._PATIENCE_S", 0.5)
    text = space.write("texts/system.txt", "One.")
    space.recipe(RECIPE)
    with watching(space) as loop, text.open("w") as file:
        file.write("Two.")
        file.flush()

        assert ("a:latest",) == loop.next().built
        said = [event.message for event in loop.events if isinstance(event, Warned)]
        assert ["texts/system.txt is still being written; waiting for its end"] == said


def test_a_directory_that_vanishes_at_that_moment_is_no_reason_to_poll(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a directory and listening to it, it was taken away; it is listened to when it is back."""
    from watchdog.observers import Observer

    real, gone = Observer.schedule, []

    def vanishing(self: BaseObserver, handler: FileSystemEventHandler, path: str, **options: bool) -> ObservedWatch:
        if path.endswith("texts") and not gone:
            gone.append(path)
            raise FileNotFoundError(path)
        return real(self, handler, path, **options)

    monkeypatch.setattr(Observer, "schedule", vanishing)
    space.write("texts/system.txt", "One.")
    space.recipe(RECIPE)
    with watching(space) as loop:
        assert loop.none_within(0.5)
        space.write("texts/system.txt", "Two.")

        assert ("a:latest",) == loop.next().built
        assert gone
        assert not [event for event in loop.events if isinstance(event, Warned)]


def test_network_file_systems_are_looked_at_regularly(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not tell what other machines do there; that is said once."""
    monkeypatch.setattr("modelbuild.watch.notifier.mounts", lambda: {"/": "ext4", str(space.root / "texts"): "nfs4"})
    space.write("texts/system.txt", "One.")
    space.recipe(RECIPE)
    with watching(space) as loop:
        space.write("texts/system.txt", "Two.")
        loop.next()
        said = [event.message for event in loop.events if isinstance(event, Warned)]

        assert [f"{space.root}/texts is on a network file system; looking for changes every 0.5 s instead"] == said


def test_an_input_that_vanishes_in_the_middle_of_a_build_ends_nothing(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the engine meets the gap between two steps of a save, the next save builds."""
    import modelbuild.watch.loop as module

    space.write("texts/system.txt", "One.")
    space.recipe(RECIPE)
    with watching(space) as loop:
        with monkeypatch.context() as patch:
            patch.setattr(module, "build_plan", _vanish)
            space.write("texts/system.txt", "Two.")
            assert loop.next().is_stopped
        space.write("texts/system.txt", "Three.")

        while not (done := loop.next()).built:
            assert done.is_stopped
        assert "Three." == _prompt_of_a(space)


def _vanish(*_: object) -> None:
    raise FileNotFoundError
