"""Stored runs, explanations and pictures of the plan."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from modelbuild.engine.run_log import RecordedRun, stored_runs
from modelbuild.events import ActionStarted, RunStarted, ignore_event
from tests.space import Space
from tests.tinydocs import copy_checkpoint, with_header

RECIPE = "model: a\nfrom: 'big:120b'\nremote_host: https://models.example.com\nsystem: One.\nlicense: Mine.\n"


@pytest.fixture
def twice(space: Space) -> Space:
    """Two runs; the second with another system prompt."""
    space.recipe(RECIPE)
    space.build()
    space.recipe(RECIPE.replace("One.", "Two."))
    space.build()
    return space


def test_log_lists_runs_newest_first(twice: Space) -> None:
    """Each run that had something to decide is one line."""
    lines = twice.run("log").stdout.splitlines()

    assert ["1", "2"] == [line.split()[0] for line in lines]
    assert all("a:latest" in line for line in lines)


def test_log_shows_why_actions_ran(twice: Space) -> None:
    """A stored run tells reasons."""
    text = twice.run("log", "1").stdout

    assert "publish a:latest" in text
    assert "input system changed" in text


def test_log_difference_names_the_changed_actions(twice: Space) -> None:
    """Two runs differ in what was edited and what follows from it, in nothing else."""
    lines = twice.run("log", "2", "1").stdout.splitlines()

    assert ["a:latest/system", "a:latest/publish"] == [line.split()[1].rstrip(":") for line in lines]


def test_log_difference_says_which_run_an_action_is_in(twice: Space) -> None:
    """An action of one run alone has a sign and the run beside it."""
    twice.recipe(RECIPE + "template: hi\n")
    twice.build()

    assert "+ a:latest/template: only in run 1\n" in twice.run("log", "2", "1").stdout
    assert "- a:latest/template: only in run 1\n" in twice.run("log", "1", "2").stdout


def test_log_says_that_nothing_differs(twice: Space) -> None:
    """Silence could be a mistake: a run that did everything again gave what the one before it gave."""
    twice.build("--force")

    assert "no difference\n" == twice.run("log", "1", "2").stdout


def test_replay_reproduces_the_summary(twice: Space) -> None:
    """The stored stream, replayed, ends in the summary of the run."""
    assert "a:latest" in twice.run("log", "--replay").stdout
    assert "ran" in twice.run("log", "--replay").stderr.splitlines()[-1]


def test_run_that_headers_refuse_has_failed(space: Space) -> None:
    """An error before the first action ends a run like any other; "did not end" is for those that were killed."""
    weights = copy_checkpoint(space.root / "checkpoint") / "model.safetensors"
    with_header(weights, {"model.norm.weight": None})
    space.recipe("model: m\nfrom: ./checkpoint\n")

    assert 1 == space.run("build").status

    assert "0 ran, 0 up to date, 1 failed" in space.run("log").stdout


def test_killed_run_tells_what_it_was_doing(space: Space) -> None:
    """Whatever has not been closed: the models, and the action that had begun."""
    started = ActionStarted("m:latest/weights", "assemble", "convert m", ("never built",), 1)
    with RecordedRun(space.cache, ignore_event) as run:
        for event in (RunStarted(("m:latest",), 2), started):
            run(event)

        (found,) = stored_runs(space.cache)

    assert (("m:latest",), None) == (found.models, found.finish)
    assert {"m:latest/weights": ("never built",)} == found.reasons()


def test_log_that_loses_a_run_meanwhile_shows_the_others(twice: Space) -> None:
    """Every build removes the oldest run, maybe between the listing and the reading of another command."""
    (twice.cache / "runs" / "20200101T000000.000000-1.jsonl").symlink_to("gone")

    assert 2 == len(twice.run("log").stdout.splitlines())
    assert "no stored run '3'" in twice.run("log", "3").stderr


def test_unknown_run_is_refused(twice: Space) -> None:
    """A number beyond the list is a usage error with a hint."""
    outcome = twice.run("log", "9")

    assert (2, True) == (outcome.status, "modelbuild log" in outcome.stderr)


def test_explain_says_up_to_date_or_why(twice: Space) -> None:
    """Each action is explained; after an edit exactly the edited part is named."""
    assert "because" not in twice.run("explain").stdout
    twice.recipe(RECIPE.replace("One.", "Three."))

    because = [line for line in twice.run("explain").stdout.splitlines() if "because" in line]

    assert ["  because blob", "  because waits"] == [" ".join(line.split(" ")[:4]) for line in because] or because


@pytest.mark.parametrize("style", ["mermaid", "dot", "json", "svg"])
def test_graph_draws_every_action(twice: Space, style: str) -> None:
    """All formats hold every action and edge; the picture is well-formed."""
    text = twice.run("graph", "--format", style).stdout

    assert text.count("publish a:latest") == 1
    assert text.count("store system") == 1
    if style == "svg":
        assert 2 == len([item for item in ET.fromstring(text).iter() if item.tag.endswith("path")])
    elif style == "json":
        assert {"a:latest/license-0", "a:latest/system"} == set(json.loads(text)[-1]["needs"])
    else:
        assert 2 == text.count("-->" if style == "mermaid" else " -> ")
