"""An error in one model and what happens to the others."""

from __future__ import annotations

import pytest

from tests.space import Space
from tests.tinydocs import copy_checkpoint, with_header

RECIPE = """models:
  broken: {from: ./checkpoint}
  child: {from: {model: broken}, system: Hi.}
  far: {from: 'big:120b', remote_host: 'https://models.example.com'}
"""


@pytest.fixture
def place(space: Space) -> Space:
    """One model that cannot be built, one on top of it, one beside it."""
    weights = copy_checkpoint(space.root / "checkpoint") / "model.safetensors"
    with_header(weights, {"model.norm.weight": None})
    space.recipe(RECIPE)
    return space


def _manifests(space: Space) -> set[str]:
    return {path.parent.name for path in (space.store / "manifests").rglob("latest")}


def test_first_error_stops_the_build(place: Space) -> None:
    """Without the option nothing is built."""
    assert 1 == place.run("build", "recipe.yaml").status
    assert set() == _manifests(place)


def test_keep_going_builds_what_does_not_depend_on_it(place: Space) -> None:
    """With it the independent model is built, the dependent one is not, and the status is that of the error."""
    outcome = place.run("build", "recipe.yaml", "--keep-going")

    assert (1, {"far"}) == (outcome.status, _manifests(place))
    assert "model.safetensors" in outcome.stderr
