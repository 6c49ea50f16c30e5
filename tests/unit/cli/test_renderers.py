"""What people see of a run's events."""

from __future__ import annotations

import pytest

from modelbuild.cli.render import PlainRenderer
from modelbuild.cli.render_tty import TerminalRenderer
from modelbuild.events import ActionFinished, ActionProgress, ActionStarted, Event, RunFinished

READING = ActionProgress("a:weights", 1 << 20, 4 << 20)
STARTED = ActionStarted("a:weights", "assemble", "convert a", ("never built",), 8 << 20)
PACKING = ActionProgress("a:weights", 2 << 20, 8 << 20)
FINISHED = ActionFinished("a:weights", "assemble", "convert a", "ran", "sha256:0", 8 << 20, 9.0)


class _Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """A clock that the test moves."""
    clock = _Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_plain_progress_has_a_title_and_counts_from_the_work(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """However long planning took: a line every five seconds of reading or packing, and each says of what."""
    show = PlainRenderer()
    clock.now_s += 60
    show(READING)
    assert [] == _lines(capsys)
    clock.now_s += 5
    show(READING)
    assert ["read inputs of a:weights: 25 % of 4.0 MiB"] == _lines(capsys)
    show(STARTED)
    clock.now_s += 4
    show(PACKING)
    assert ["convert a: never built"] == _lines(capsys)
    clock.now_s += 1
    show(PACKING)
    show(FINISHED)
    assert ["  25 % of 8.0 MiB", "  done in 9.0 s, 8.0 MiB"] == _lines(capsys)


def test_plain_progress_of_each_action_is_shown(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A talkative action takes no lines from another one."""
    show = PlainRenderer()
    for name in ("a", "b"):
        show(ActionStarted(name, "assemble", f"convert {name}", ("never built",), 100))
    clock.now_s += 5
    _lines(capsys)

    for name in ("a", "b", "a"):
        show(ActionProgress(name, 50, 100))

    assert ["convert a: 50 % of 100 B", "convert b: 50 % of 100 B"] == _lines(capsys)


def test_an_indented_line_stands_below_its_own(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Of several actions that end together, none seems to be another's."""
    show = PlainRenderer()
    for name in ("a", "b"):
        show(ActionStarted(name, "assemble", f"convert {name}", ("never built",), 100))
    _lines(capsys)

    for name in ("a", "b"):
        show(ActionFinished(name, "assemble", f"convert {name}", "ran", "sha256:0", 100, 9.0))

    assert ["convert a: done in 9.0 s, 100 B", "convert b: done in 9.0 s, 100 B"] == _lines(capsys)


def test_a_bar_is_of_what_the_action_does(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading its inputs has a bar, which the one of the action itself replaces; at the end there is none."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    renderer = TerminalRenderer()
    bars: list[list[tuple[str, float, float | None]]] = []
    events: tuple[Event, ...] = (READING, STARTED, PACKING, FINISHED)
    for event in events:
        renderer(event)
        bars.append([(bar.description, bar.completed, bar.total) for bar in renderer._bars.tasks])
    renderer(RunFinished(1, 0, 0, 9.0))

    assert [("read inputs of a:weights", 1 << 20, 4 << 20)] == bars[0]
    assert [("convert a", 0, 8 << 20)] == bars[1]
    assert [("convert a", 2 << 20, 8 << 20)] == bars[2]
    assert [] == bars[3]
    assert "convert a: never built" in capsys.readouterr().err
