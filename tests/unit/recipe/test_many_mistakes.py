"""Recipes made of mistakes: the search for them and for what was meant ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import MISTAKES_LIMIT, Problems
from modelbuild.plan.planner import make_plan
from modelbuild.recipe.resolve import load_recipe
from modelbuild.similar_names import similar_names
from modelbuild.store.store import Store

MANY = range(2 * MISTAKES_LIMIT)


@pytest.mark.parametrize(
    "text",
    [
        "model: a\nfrom: b\n" + "".join(f"quantiz{n}: 1\n" for n in MANY),
        "models:\n" + "".join(f" m{n}: {{from: b, sistem: a}}\n" for n in MANY),
        "models:\n" + "".join(f" m{n}: {{extends: m{n}x}}\n" for n in MANY),
        "models:\n" + "".join(f" m{n}: {{from: {{model: n{n}}}}}\n" for n in MANY),
        "variables: {a: b}\nmodels:\n" + "".join(f" m{n}: {{from: b, system: '${{x{n}}}'}}\n" for n in MANY),
        "models:\n" + "".join(f" m{n}: {{from: ./missing{n}.gguf}}\n" for n in MANY),
        "models:\n" + "".join(f" m{n}: {{from: missing{n}}}\n" for n in MANY),
    ],
    ids=["fields", "fields of models", "extends", "references", "variables", "paths", "names"],
)
def test_the_search_for_mistakes_ends(tmp_path: Path, text: str) -> None:
    """The first five hundred are shown, and that there are more."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)

    with pytest.raises(Problems) as caught:
        make_plan(load_recipe(recipe), Store(tmp_path / "models"))

    *shown, last = caught.value.errors
    assert MISTAKES_LIMIT + 1 == len(shown)
    assert ("LIMIT", "there are more mistakes than these") == (last.code, last.message)
    assert 2 == caught.value.exit_status


def test_one_mistake_in_many_variants_is_one(tmp_path: Path) -> None:
    """What all variants of a model share does not hide other mistakes behind the limit."""
    values = ", ".join(map(str, MANY))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "variables: {a: b}\nmodels:\n"
        f" m: {{from: b, model: 'm:${{n}}', matrix: {{n: [{values}]}}, system: '${{x}}'}}\n"
        " z: {from: b, system: '${y}'}\n"
    )

    with pytest.raises(Problems) as caught:
        load_recipe(recipe)

    assert ["no variable 'x'", "no variable 'y'"] == [error.message for error in caught.value.errors]


def test_warnings_end_too(tmp_path: Path) -> None:
    """Unknown parameters and unused variables are warned of five hundred times."""
    recipe = tmp_path / "recipe.yaml"
    parameters = "".join(f" temperatur{n}: 1\n" for n in MANY)
    recipe.write_text(
        "variables:\n" + "".join(f" v{n}: a\n" for n in MANY) + f"model: a\nfrom: b\nparameters:\n{parameters}"
    )

    assert 2 * MISTAKES_LIMIT == len(load_recipe(recipe).warnings)


def test_few_of_many_names_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing is slow: of many names those are compared that begin like the word, and a hundred of them."""
    compared: list[list[str]] = []
    monkeypatch.setattr("difflib.get_close_matches", lambda word, names, n, cutoff: compared.append(names) or [])

    similar_names("modle", ["x"] * 50 + ["model"])
    similar_names("Modle", [f"x{n}" for n in range(1000)] + ["model"])
    similar_names("modle", [f"model{n}" for n in range(1000)])

    assert [51, 1, 100] == [len(names) for names in compared]
