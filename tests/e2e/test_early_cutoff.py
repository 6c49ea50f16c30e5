"""An action that runs and makes what it made before stops there: what depends on it is up to date."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import Space

RECIPE = """models:
  imported: {from: ./weights.gguf, system: {file: ./system.txt}}
  child: {from: {model: imported}, parameters: {temperature: 0}}
  small: {from: ./checkpoint, pre_tokenizer: llama-bpe, quantize: Q8_0}
  heir: {from: {model: small}, system: Two.}
"""


def _touch(space: Space, name: str) -> None:
    space.write(name, (space.root / name).read_bytes())


def _edit(space: Space, old: str, new: str) -> None:
    text = (space.root / "recipe.yaml").read_text()
    assert old in text
    space.recipe(text.replace(old, new))


#: An edit that changes no result, by the edge of the plan that it would run over, and what may run because of it.
EDITS: dict[str, tuple[Callable[[Space], None], set[str]]] = {
    "import, publish": (lambda space: _touch(space, "weights.gguf"), set()),
    "text, publish": (lambda space: _edit(space, "{file: ./system.txt}", "One."), set()),
    "checkpoint, assemble": (lambda space: _touch(space, "checkpoint/model.safetensors"), set()),
    "assemble, publish": (
        lambda space: _edit(space, "Q8_0}", "Q8_0, tensor_types: [{pattern: output.weight, type: Q8_0}]}"),
        {"assemble"},
    ),
    "publish, publish": (lambda space: _edit(space, "{model: imported}", "'imported:latest'"), set()),
}


@pytest.mark.parametrize("edge", EDITS)
def test_equal_results_run_nothing_behind_them(space: Space, edge: str) -> None:
    """No publish action runs, and the store is as it was."""
    write_checkpoint(space.root / "checkpoint")
    space.write("weights.gguf", write_gguf())
    space.write("system.txt", "One.")
    space.recipe(RECIPE)
    space.build()
    before = {name: (space.store / name).read_bytes() for name in space.files()}
    edit, may_run = EDITS[edge]
    edit(space)

    events = [json.loads(line) for line in space.build("--progress", "json").stdout.splitlines()]

    ran = {event["kind"] for event in events if event["event"] == "action-finished" and event["outcome"] == "ran"}
    assert ran <= may_run
    assert before == {name: (space.store / name).read_bytes() for name in space.files()}
