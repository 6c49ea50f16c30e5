"""The examples of docs/python.md run as they stand, one after the other."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from modelbuild.watch.loop import Round
from tests.small_gguf import write_gguf
from tests.space import ROOT, Space

RECIPE = """
variables: {text: hello}
models:
  base: {from: ./base.gguf}
  child: {from: {model: base}, system: "${text}"}
"""


def test_examples_of_the_page_run(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace, as in a notebook."""
    for name, value in space.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(space.root)
    space.write("base.gguf", write_gguf())
    space.recipe(RECIPE)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    namespace: dict[str, object] = {}

    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), namespace)

    assert len(blocks) > 6


def test_every_field_of_a_round_is_listed() -> None:
    """The table of the page is that of the class."""
    page = (ROOT / "docs" / "python.md").read_text()
    table = page.partition("| field of a round |")[2].partition("\n\n")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if "|" in row]
    listed = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}

    assert {item.name for item in fields(Round)} == listed
