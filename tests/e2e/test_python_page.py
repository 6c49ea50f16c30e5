"""The examples of docs/python.md run as they stand, one after the other."""

from __future__ import annotations

import re

import pytest

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
