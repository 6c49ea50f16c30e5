"""The corpus of bad recipes: each is refused with exactly the stated places, codes and messages, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import ModelbuildError, Problems
from modelbuild.recipe.resolve import load_recipe
from tests.recipes import Recipes

CASES = sorted((Path(__file__).parents[2] / "data" / "bad_recipes").iterdir())


def _recipe_of(case: Path) -> Path:
    return next(path for path in case.iterdir() if path.name in ("recipe.yaml", "recipe.json", "Modelfile"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_bad_recipe_is_refused_exactly(case: Path) -> None:
    """Every line of expected.txt is one error: place (with the file when it is another one), code, message."""
    recipe = _recipe_of(case)
    expected = (case / "expected.txt").read_text().splitlines()

    assert expected == Recipes(case).errors(recipe.read_bytes(), name=recipe.name, write=False)


def test_every_error_says_what_to_do() -> None:
    """Errors come with a hint, unless they say what is expected, or there is nothing to add but "less of it"."""
    without: list[str] = []
    for case in CASES:
        try:
            load_recipe(_recipe_of(case))
        except ModelbuildError as error:
            errors = error.errors if isinstance(error, Problems) else (error,)
            without += [item.message for item in errors if not item.hint and " expected, " not in item.message]

    assert len(without) <= 20, without


def test_corpus_is_large_enough() -> None:
    """At least 120 different mistakes are covered, and every code that recipes can give."""
    codes = {line.split()[1] for case in CASES for line in (case / "expected.txt").read_text().splitlines()}

    assert len(CASES) >= 120
    assert codes >= {"YAML", "LIMIT", "TYPE", "UNKNOWN", "MISSING", "CONFLICT", "DUPLICATE", "CYCLE", "AMBIGUOUS"}
    assert codes >= {"PATH", "NOTREGULAR", "MODELNAME", "DIGEST", "TEMPLATE", "INTERPOLATION", "MODELFILE", "TEXT"}
