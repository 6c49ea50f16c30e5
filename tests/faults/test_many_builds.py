"""Several builds of one recipe at the same time, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from modelbuild.engine.locks import ActionLocks
from modelbuild.engine.run_log import stored_runs
from modelbuild.events import ActionFinished
from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import Space

BUILDS = 8
RECIPE = """models:
  imported: {from: ./weights.gguf, system: One., license: Mine.}
  small: {from: ./checkpoint, quantize: Q8_0, template: "{{ .Prompt }}"}
  child: {from: {model: imported}, system: Two.}
"""


@pytest.mark.parametrize("executor", ["inline", "workers"])
def test_eight_builds_run_each_action_once(space: Space, executor: str) -> None:
    """All end well, the logs of all runs together hold each action once as run, and gc finds nothing to delete."""
    write_checkpoint(space.root / "checkpoint")
    space.write("weights.gguf", write_gguf())
    space.recipe(RECIPE)

    command = [
        sys.executable,
        "-m",
        "modelbuild",
        "--progress",
        "quiet",
        "build",
        "recipe.yaml",
        "--executor",
        executor,
    ]
    running = [
        subprocess.Popen(command, cwd=space.root, env=space.environment(), stderr=subprocess.PIPE, text=True)
        for _ in range(BUILDS)
    ]
    outcomes = [(process.communicate(timeout=120)[1], process.returncode) for process in running]

    assert [("", 0)] * BUILDS == [(text.replace(_WAITING, ""), status) for text, status in outcomes]
    events = [event for run in stored_runs(space.cache) for _, event in run.events]
    ran = Counter(event.action for event in events if isinstance(event, ActionFinished) and event.outcome == "ran")
    assert 1 == max(ran.values()), ran
    assert {"imported", "small", "child"} <= {action.partition(":")[0] for action in ran}
    blobs = space.blobs()
    assert 0 == space.run("gc", "--older-than", "0").status
    assert blobs == space.blobs()


def test_different_recipes_share_the_work(space: Space) -> None:
    """Two recipes that convert the same checkpoint, four builds of each: it is converted once."""
    write_checkpoint(space.root / "checkpoint")
    fields = "from: ./checkpoint\npre_tokenizer: llama-bpe\nquantize: Q8_0\n"
    for name in ("one", "two"):
        space.write(f"{name}.yaml", f"model: {name}\n{fields}system: {name}\n")

    running = [
        subprocess.Popen(
            [sys.executable, "-m", "modelbuild", "--progress", "quiet", "build", f"{name}.yaml"],
            cwd=space.root, env=space.environment(), stderr=subprocess.DEVNULL,
        )
        for name in ("one", "two") * 4
    ]  # fmt: skip

    assert [0] * 8 == [process.wait(timeout=120) for process in running]
    events = [event for run in stored_runs(space.cache) for _, event in run.events]
    ran = [event for event in events if isinstance(event, ActionFinished) and event.outcome == "ran"]
    assert 1 == sum(event.kind == "assemble" for event in ran)
    assert 2 == sum(event.kind == "publish" for event in ran)


_WAITING = "warning: another build is running; the next one deletes what is not needed any more\n"


def test_a_lock_that_was_released_meanwhile_counts(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes all between our decision and our lock: nothing is done twice."""
    space.recipe("model: m\nfrom: 'big:120b'\nremote_host: 'https://models.example.com'\nsystem: One.\n")
    real, calls = ActionLocks.try_hold, []

    def late(*arguments, **options):  # type: ignore[no-untyped-def]
        if not calls:
            calls.append(space.spawn("build", "recipe.yaml").status)
        return real(*arguments, **options)

    monkeypatch.setattr(ActionLocks, "try_hold", late)

    outcome = space.build()

    assert [0] == calls
    assert "nothing to do" in outcome.stderr
