"""Which work of a running build is wasted, and what is passed on of a build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    ActionWaiting,
    Event,
    ModelFinished,
    RunFinished,
    RunStarted,
)
from modelbuild.plan.action import ActionInput, FileInput, Kind
from modelbuild.plan.graph import Action, ImportWork, Plan, TextWork
from modelbuild.watch.stale import Listener, StoppedError, is_made_from, is_replaced

WEIGHTS = Action(
    "import:a", Kind.IMPORT, "a", (FileInput("file", Path("/in/a.gguf")),), {}, ImportWork(Path("/in/a.gguf"))
)
PACKED = Action(
    "assemble:a", Kind.ASSEMBLE, "a", (ActionInput("source", "import:a"),), {"preset": "Q8_0"}, TextWork(b"")
)
TEXT = Action("text:s", Kind.TEXT, "s", (), {}, TextWork(b"One."))
PLAN = Plan((WEIGHTS, PACKED, TEXT), ())


def test_work_is_made_from_the_files_of_all_that_it_needs() -> None:
    """Also through another action; not from files of others."""
    files = [Path("/in/a.gguf")]

    assert [True, True, False] == [is_made_from(item.id, PLAN, files) for item in PLAN.actions]
    assert not is_made_from("assemble:a", PLAN, [Path("/in/b.gguf")])


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ((WEIGHTS, PACKED, TEXT), False),
        ((WEIGHTS, PACKED, replace(TEXT, work=TextWork(b"Two."))), False),
        ((WEIGHTS, replace(PACKED, options={"preset": "Q4_0"}), TEXT), True),
        ((replace(WEIGHTS, work=ImportWork(Path("/in/b.gguf"))), PACKED, TEXT), True),
        ((TEXT,), True),
    ],
    ids=["same", "other text", "other type", "other source", "gone"],
)
def test_work_is_replaced_when_it_or_what_it_needs_differs(now: tuple[Action, ...], expected: bool) -> None:
    """Other actions of the plan may come, go and change."""
    assert expected == is_replaced("assemble:a", PLAN, Plan(now, ()))


def test_waiting_for_another_process_ends_when_the_work_is_wasted() -> None:
    """Only while it is waited for: what is under way is judged at its progress."""
    asked: list[str] = []
    listener = Listener(lambda _: None, lambda action: bool(asked.append(action)) or len(asked) > 1)
    listener.check()
    listener(ActionWaiting("a", "a", "17"))
    listener.check()
    with pytest.raises(StoppedError):
        listener.check()
    listener(ActionStarted("a", "text", "a", (), 0))
    listener.check()

    assert ["a", "a"] == asked


def test_work_that_is_nearly_done_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second to go is finished; more is left when it is wasted."""
    now_s = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    listener = Listener(lambda _: None, lambda _: True)
    listener(ActionStarted("a", "assemble", "a", (), 100))
    now_s = 9.0
    listener(ActionProgress("a", 95, 100))
    with pytest.raises(StoppedError):
        listener(ActionProgress("a", 90, 100))


def test_a_build_without_work_passes_nothing_on() -> None:
    """Where there may be none, events wait for the first that tells of some, and come in their order."""
    idle: list[Event] = [
        RunStarted(("m",), 1),
        ActionFinished("a", "text", "a", "cached", "", 0, 0.0),
        ModelFinished("m", "unchanged", "", 0),
    ]
    passed: list[Event] = []
    listener = Listener(passed.append, lambda _: False, may_be_idle=True)
    for event in idle:
        listener(event)
    assert (True, []) == (listener.is_idle, passed)

    listener(started := ActionStarted("b", "text", "b", (), 0))
    listener(finished := RunFinished(1, 1, 0, 0.0))

    assert (False, [*idle, started, finished]) == (listener.is_idle, passed)
