"""Recipes whose few lines are taken over by thousands of models: what they come to is bounded beforehand."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import ModelbuildError
from modelbuild.recipe.resolve import load_recipe

_MESSAGES = ", ".join(["{role: user, content: hi}"] * 1000)
_MODELS = "".join(f" m{n}: {{from: b}}\n" for n in range(1000))


@pytest.mark.parametrize(
    "text",
    [
        f"defaults: {{messages: [{_MESSAGES}]}}\nmodels:\n{_MODELS}",
        f"models:\n .a: {{from: b, messages: [{_MESSAGES}]}}\n"
        + "".join(f" m{n}: {{extends: .a}}\n" for n in range(1000)),
        (
            f"models:\n m: {{from: b, model: 'm:${{n}}', messages: [{_MESSAGES}],\n"
            f"  matrix: {{n: [{', '.join(map(str, range(1000)))}]}}}}\n"
        ),
    ],
    ids=["defaults", "extends", "matrix"],
)
def test_values_of_all_models_are_bounded(tmp_path: Path, text: str) -> None:
    """Three million values of a hundred kilobytes are an error with the place where it became too much."""
    (tmp_path / "recipe.yaml").write_text(text)

    with pytest.raises(ModelbuildError, match=r"recipe.yaml:\d+:\d+: the models of this recipe have more than 500,000"):
        load_recipe(tmp_path / "recipe.yaml")


def test_axes_do_not_count(tmp_path: Path) -> None:
    """A matrix of a thousand values makes a thousand small models."""
    values = ", ".join(map(str, range(1000)))
    (tmp_path / "recipe.yaml").write_text(f"models:\n m: {{from: b, model: 'm:${{n}}', matrix: {{n: [{values}]}}}}\n")

    assert 1000 == len(load_recipe(tmp_path / "recipe.yaml").models)


def test_expressions_are_bounded(tmp_path: Path) -> None:
    """A hundred models of twenty thousand expressions each."""
    text = "${a} " * 20_000
    (tmp_path / "recipe.yaml").write_text(
        f"variables: {{a: x}}\ndefaults: {{system: '{text}'}}\nmodels:\n"
        + "".join(f" m{n}: {{from: b}}\n" for n in range(100))
    )

    with pytest.raises(ModelbuildError, match="more than 1,000,000 expressions in all"):
        load_recipe(tmp_path / "recipe.yaml")
