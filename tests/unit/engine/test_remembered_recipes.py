"""A recipe that was read before is the same recipe: its nodes, its errors and their places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.engine import remembered_recipes
from modelbuild.engine.remembered_recipes import RememberedRecipes
from modelbuild.errors import ModelbuildError, Problems, RecipeError
from modelbuild.recipe.documents import parse_recipe
from modelbuild.recipe.nodes import Node
from modelbuild.recipe.resolve import load_recipe
from modelbuild.store.state import State

ROOT = Path(__file__).parents[3]
BAD = sorted((ROOT / "tests" / "data" / "bad_recipes").iterdir())
GOOD = sorted(ROOT.glob("examples/*/*.yaml"))
#: All ways to write a scalar, lists and mappings in both styles, an anchor with its aliases, and a merge.
EVERY_FORM = b"""\
plain: [1, -0.0, 1e3, 0x1F, true, null, ~, no, "1", 'it''s', "a\\tb\\u00e9\\U0001F600", 12345678901234567890123]
literal: |
  first
   second
folded: >-
  one
  line
over lines: "one
  two"
empty: {text: "", list: [], mapping: {}}
base: &base {a: 1, b: [x, y]}
more: {<<: *base, c: *base}
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "cache")
    yield state
    state.close()


class Readings:
    """What reads recipes, and how often it did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(remembered_recipes, "parse_recipe", self._parse)

    def _parse(self, data: bytes, path: Path) -> Node:
        self.count += 1
        return parse_recipe(data, path)


@pytest.mark.parametrize(
    "data",
    [EVERY_FORM, b'{"model": "m", "parameters": {"a": 1.5, "b": "\\u0041\\n"}}', *(path.read_bytes() for path in GOOD)],
    ids=["every form", "JSON", *(f"{path.parent.name}/{path.name}" for path in GOOD)],
)
def test_recipe_is_read_once_and_stays_the_same(data: bytes, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field of every node, by another process as well."""
    readings, path = Readings(monkeypatch), Path("recipe.yaml")

    found = [RememberedRecipes(state).parse(data, path) for _ in range(3)]

    assert 1 == readings.count
    assert [repr(parse_recipe(data, path))] * 3 == [repr(root) for root in found]  # 1 and True are equal, not alike


def test_other_bytes_or_another_file_are_read(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """One edit, one reading; a row that somebody else wrote is none of ours."""
    readings, recipes = Readings(monkeypatch), RememberedRecipes(state)
    for data, name in ((b"a: 1", "one"), (b"a: 2", "one"), (b"a: 1", "two"), (b"a: 1", "one"), (b"a: 1", "one")):
        root = recipes.parse(data, Path(name))

        assert repr(parse_recipe(data, Path(name))) == repr(root)
    assert 4 == readings.count

    key = f"recipe {Path('one').absolute()}"
    state.record_snapshot(key, f"{(state.snapshot(key) or '')[:64]}[1]")
    assert repr(parse_recipe(b"a: 1", Path("one"))) == repr(recipes.parse(b"a: 1", Path("one")))


def test_what_cannot_be_read_is_not_remembered(state: State) -> None:
    """The error comes again, with its place."""
    for _ in range(2):
        with pytest.raises(RecipeError) as caught:
            RememberedRecipes(state).parse(b"a: [1", Path("recipe.yaml"))

        assert ("YAML", 2) == (caught.value.code, caught.value.position.line if caught.value.position else 0)


@pytest.mark.parametrize("case", BAD, ids=lambda path: path.name)
def test_bad_recipe_is_refused_in_the_same_words(case: Path, state: State) -> None:
    """The first build and the next one name the same mistakes at the same places."""
    recipe = next(path for path in case.iterdir() if path.name in ("recipe.yaml", "recipe.json", "Modelfile"))
    expected = _errors(recipe, None)

    assert [expected] * 2 == [_errors(recipe, state) for _ in range(2)]


def _errors(recipe: Path, state: State | None) -> list[str]:
    try:
        load_recipe(recipe, parse=parse_recipe if state is None else RememberedRecipes(state).parse)
    except ModelbuildError as error:
        return [f"{item}" for item in (error.errors if isinstance(error, Problems) else (error,))]
    return []
