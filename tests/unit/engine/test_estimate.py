"""Expected times come from earlier runs, by action where it ran before, else by kind."""

from __future__ import annotations

from modelbuild.engine.estimate import Experience, cost_of, experience_of
from modelbuild.engine.run_log import RunRecord
from modelbuild.events import ActionFinished
from modelbuild.plan.preview import ActionPreview


def _finished(action: str, size_bytes: int, seconds: float, outcome: str = "ran") -> tuple[float, ActionFinished]:
    return 0.0, ActionFinished(action, "assemble", action, outcome, "", size_bytes, seconds)


def _preview(action: str, write_bytes: int | None, *, runs: bool = True) -> ActionPreview:
    return ActionPreview(action, "assemble", action, runs, (), 0, write_bytes)


def test_the_last_run_of_an_action_tells_its_rate() -> None:
    """Twice the bytes, twice the time; an older or a cached run does not count."""
    newer = RunRecord("2", 0, (_finished("a", 100, 2.0), _finished("b", 1, 0.0, "cached")))
    older = RunRecord("1", 0, (_finished("a", 100, 9.0),))

    assert 4.0 == experience_of([newer, older]).expected_seconds(_preview("a", 200))


def test_an_action_that_never_ran_goes_by_its_kind() -> None:
    """The median rate of the kind; nothing at all when the kind never ran."""
    runs = [RunRecord("1", 0, tuple(_finished(name, 10, seconds) for name, seconds in (("a", 1), ("b", 2), ("c", 9))))]

    assert 4.0 == experience_of(runs).expected_seconds(_preview("new", 20))
    assert None is Experience().expected_seconds(_preview("new", 20))


def test_a_plan_costs_what_runs() -> None:
    """Cached actions cost neither time nor room, and an unknown one makes the time a lower bound."""
    experience = Experience({"a": (10, 1.0)})
    previews = [_preview("a", 10), _preview("b", 7), _preview("c", 1000, runs=False)]

    cost = cost_of(previews, experience)

    assert (1.0, False, 17) == (cost.seconds, cost.is_complete, cost.needed_bytes)
