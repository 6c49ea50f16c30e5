"""Large conversions of different builds with one cache take turns; what leaves room for another goes on beside them."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from modelbuild.engine import blocks, turns
from modelbuild.engine.build import BuildRequest, build_recipe
from modelbuild.engine.check import rebuild_and_compare
from modelbuild.engine.locks import ActionLocks, Flag, Held
from modelbuild.engine.run_options import RunOptions
from modelbuild.events import ActionFinished, ActionStarted, ActionWaiting, Event
from modelbuild.store.state import State
from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import Space

CONVERTED = "pre_tokenizer: llama-bpe, quantize: Q8_0"
RECIPE = f"""models:
  large: {{from: ./checkpoint, {CONVERTED}}}
  imported: {{from: ./weights.gguf}}
"""


@pytest.fixture
def place(space: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    """On a machine with four cores, a checkpoint with work for all of them, and weights that are only copied."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(blocks, "BLOCK_WEIGHTS", 64)
    write_checkpoint(space.root / "checkpoint")
    space.write("weights.gguf", write_gguf())
    space.recipe(RECIPE)
    return space


class _Turn:
    """A turn that another build has, until somebody has waited for it."""

    def __init__(self, cache: Path) -> None:
        held = ActionLocks(cache).try_hold(["turn: cores"])
        assert isinstance(held, Held)
        self._held = held
        self.events: list[Event] = []

    def end_when_waited_for(self) -> None:
        """Called by the run again and again."""
        if self.waits():
            self._held.release()

    def waits(self) -> list[tuple[str, str, str]]:
        """What was said about waiting."""
        return [(event.title, event.holder, event.need) for event in self.events if isinstance(event, ActionWaiting)]

    def options(self, jobs: int | None = None) -> RunOptions:
        """Those of a run that this turn ends for."""
        return RunOptions(workers=jobs, check=self.end_when_waited_for)

    def release(self) -> None:
        """Let it go, if nobody has waited."""
        self._held.release()


def _request(place: Space, options: RunOptions) -> BuildRequest:
    return BuildRequest(place.root / "recipe.yaml", place.store, place.cache, options=options)


def _build(place: Space, turn: _Turn, jobs: int | None = None) -> list[str]:
    """Build beside the turn; the titles of what ran, in order."""
    state = State(place.cache)
    try:
        build_recipe(_request(place, turn.options(jobs)), state, turn.events.append)
    finally:
        state.close()
        turn.release()
    return [event.title for event in turn.events if isinstance(event, ActionFinished) and event.outcome == "ran"]


def test_a_large_conversion_waits_for_its_turn(place: Space) -> None:
    """It says for whom and why; the rest of the recipe is built meanwhile, and it follows."""
    turn = _Turn(place.cache)

    ran = _build(place, turn)

    assert [("convert checkpoint to Q8_0", str(os.getpid()), "cores")] == turn.waits()
    assert ran.index("publish imported:latest") < ran.index("convert checkpoint to Q8_0")
    assert "publish large:latest" == ran[-1]
    assert [] == list((place.cache / "locks").iterdir())


def test_one_that_leaves_room_for_another_does_not_wait(place: Space) -> None:
    """With half of the machine's cores it goes on beside whatever runs."""
    turn = _Turn(place.cache)

    ran = _build(place, turn, jobs=2)

    assert [] == turn.waits()
    assert "convert checkpoint to Q8_0" in ran


@pytest.mark.parametrize("has_waiter", [True, False])
def test_a_run_of_many_conversions_lets_others_go_between(
    place: Space, monkeypatch: pytest.MonkeyPatch, has_waiter: bool
) -> None:
    """Whoever waits has the next turn; where nobody does, no time is lost."""
    monkeypatch.setattr(turns, "STANDING_BACK_S", 3600.0)
    write_checkpoint(place.root / "other")
    place.recipe(
        "models:\n" + "".join(f"  {name}: {{from: ./{name}, {CONVERTED}}}\n" for name in ("checkpoint", "other"))
    )
    locks, order, waiting = ActionLocks(place.cache), [], []

    def take_a_turn(flag: Flag) -> None:
        time.sleep(1.0)  # a run that does not stand back has begun its second conversion by then
        while not isinstance(held := locks.try_hold(["turn: cores"]), Held):
            time.sleep(0.005)
        order.append("another run")
        flag.lower()
        held.release()

    def note(event: Event) -> None:
        if isinstance(event, ActionStarted) and event.title.startswith("convert "):
            order.append(event.title)
            if has_waiter and not waiting:
                flag = locks.flag("turn: cores")
                assert flag is not None
                waiting.append(threading.Thread(target=take_a_turn, args=(flag,)))
                waiting[0].start()

    with closing(State(place.cache)) as state:
        build_recipe(_request(place, RunOptions()), state, note)
    for thread in waiting:
        thread.join()

    conversions = ["convert checkpoint to Q8_0", "convert other to Q8_0"]
    assert [conversions[0], *(["another run"] if has_waiter else []), conversions[1]] == order
    assert [] == list((place.cache / "locks").iterdir())


def test_a_check_takes_its_turn(place: Space) -> None:
    """Its scratch cache is no way around."""
    place.build()
    turn = _Turn(place.cache)

    rows = rebuild_and_compare(_request(place, turn.options()), turn.events.append)

    assert ["cores"] == [need for _, _, need in turn.waits()]
    assert [True, True] == [row.is_same for row in rows]


def test_what_killed_processes_left_of_locks_goes(place: Space) -> None:
    """A file that nobody has locked is removed by the next run; one that somebody has stays."""
    left = place.write("cache/locks/left", "1\n")
    with ActionLocks(place.cache).try_hold(["another build's"]):
        (kept,) = (path for path in left.parent.iterdir() if path != left)

        place.build()

        assert [kept] == list(left.parent.iterdir())
