"""Files whose names are no text, or would move a terminal: strangers choose names, so any is used and shown safely."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET

import pytest

from modelbuild.errors import printable
from tests.small_gguf import write_gguf
from tests.space import Space

NO_TEXT = os.fsdecode(b"caf\xe9")
COMMANDS = (
    ("build",),
    ("plan",),
    ("build", "--force"),
    ("explain",),
    ("log", "1"),
    ("list",),
    ("show", "m"),
    ("inspect", "weights"),
    ("build", "--update-lock"),
    ("build", "--locked"),
    ("check",),
)


@pytest.mark.parametrize("name", [NO_TEXT, "bell\x07", "\u202ebidi", "two\nlines"])
@pytest.mark.parametrize("source", ["from: ./weights", "files: ['weights/*.gguf']"])
def test_file_of_any_name_is_built_and_shown(space: Space, name: str, source: str) -> None:
    """Every command works, and prints no byte of the name that a terminal would obey or could not show."""
    space.write(f"weights/{name}.gguf", write_gguf())
    space.recipe(f"model: m\n{source}\n")

    for command in COMMANDS:
        outcome = space.run(*command)

        assert 0 == outcome.status, (command, outcome.stderr)
        for line in (outcome.stdout + outcome.stderr).split("\n"):
            assert printable(line, len(line)) == line, command
    assert "nothing to do" in space.build().stderr
    ET.fromstring(space.run("graph", "--format", "svg").stdout)


def test_recipe_in_a_directory_whose_name_is_no_text(space: Space) -> None:
    """Its models are built once, and found up to date the next time."""
    place = Space(space.root / NO_TEXT)
    place.root.mkdir()
    place.write("base.gguf", write_gguf())
    place.recipe("model: m\nfrom: ./base.gguf\nquantize: Q8_0\nsystem: Hi.\n")

    place.build()

    assert "nothing to do" in place.build().stderr
