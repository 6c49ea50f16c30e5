"""docs/recipe.md says what is: its reference follows the schema, its recipes are valid, its limits are the code's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.space import ROOT, Space

PAGE = (ROOT / "docs" / "recipe.md").read_text("utf-8")
RECIPES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def place(space: Space) -> Space:
    """The files that the page's recipes name."""
    space.write("checkpoint/config.json", "{}")
    space.write("lora/adapter_config.json", "{}")
    space.write("LICENSE", "MIT")
    space.write("chat.tmpl", "{{ .Prompt }}")
    space.write("team.yaml", "variables: {owner: acme}\n")
    return space


def test_reference_follows_the_schema() -> None:
    """The generated part of the page is what the generator writes now."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate_recipe_reference.py"), "--check"], check=False, timeout=60
    )

    assert 0 == done.returncode, "run python docs/generate_recipe_reference.py"


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_recipes_of_the_page_are_valid(place: Space, number: int) -> None:
    """Each recipe on the page stands as it is: valid, without warnings."""
    place.recipe(RECIPES[number])

    outcome = place.run("validate", env={"MODELBUILD_ALLOW_ROOT": ""})

    assert (0, "") == (outcome.status, outcome.stderr)


def test_recipes_of_the_page_do_what_it_says(place: Space) -> None:
    """The comments and sentences beside the recipes are true."""
    inheritance = next(text for text in RECIPES if "extends: .quiet" in text)
    place.recipe(inheritance)
    printed = place.run("print", "recipe.yaml").stdout
    assert "temperature: 0.1\n      num_ctx: 8192\n      seed: 42\n" in printed
    assert "    license: null\n" in printed

    matrix = next(text for text in RECIPES if "exclude:" in text)
    place.recipe(matrix)
    assert "4 models" in place.run("validate").stdout
    assert "Be brief." in place.run("print", "recipe.yaml").stdout


def test_limits_of_the_page_are_those_of_the_code() -> None:
    """The table of limits names the numbers that are in force."""
    from modelbuild.formats import modelfile
    from modelbuild.recipe import documents, interpolation, matrix, model_reader, text

    sizes = [
        text.TEXT_LIMIT_BYTES,
        text.JSON_LIMIT_BYTES,
        modelfile.SIZE_LIMIT_BYTES,
        model_reader.TEXT_FILE_LIMIT_BYTES,
    ]
    made = [interpolation.EXPANSION_LIMIT, interpolation.TOTAL_EXPANSION_LIMIT]
    counts = (text.NODE_LIMIT, text.EXPANDED_NODE_LIMIT, text.ALIAS_LIMIT, text.DEPTH_LIMIT)
    numbers = [
        "{} MiB; JSON {} MiB; a Modelfile {} MiB; a text in a file {} MiB".format(*(size >> 20 for size in sizes)),
        "{:,}; with aliases followed {:,}; {:,} aliases; {} levels".format(*counts),
        f"{matrix.MODEL_LIMIT:,}, variants counted",
        f"{documents.INCLUDE_LIMIT} files, {documents.INCLUDE_DEPTH_LIMIT} levels",
        "{} MiB a model, {} MiB a recipe".format(*(size >> 20 for size in made)),
    ]

    assert [] == [number for number in numbers if number not in PAGE]


EXAMPLES = ROOT / "examples"
EXAMPLE_RECIPES = [
    *sorted(EXAMPLES.glob("*/*.yaml")),
    *sorted(EXAMPLES.glob("*/*.json")),
    *sorted(EXAMPLES.glob("*/Modelfile")),
]


@pytest.mark.parametrize("recipe", EXAMPLE_RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_examples_are_valid_within_their_directories(space: Space, recipe: Path) -> None:
    """Every example resolves without warnings, and reads nothing outside of its own directory."""
    outcome = space.run("validate", recipe, env={"MODELBUILD_ALLOW_ROOT": ""})

    assert (0, "") == (outcome.status, outcome.stderr)


def test_example_modelfile_builds(space: Space) -> None:
    """The example Modelfile builds on the tinydocs example, and a second time there is nothing to do."""
    assert 0 == space.run("build", EXAMPLES / "tinydocs" / "recipe.yaml", "tinydocs-q4").status
    first, second = (space.run("build", EXAMPLES / "modelfile" / "Modelfile") for _ in range(2))

    assert [0, 0] == [first.status, second.status], first.stderr
    assert "haiku:latest" in first.stdout
    assert "nothing to do" in second.stderr
