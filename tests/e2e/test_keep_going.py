"""An error in one model and what happens to the others."""

from __future__ import annotations

import pytest

from tests.small_gguf import write_gguf
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


def test_first_error_begins_nothing_more(space: Space) -> None:
    """What an error of weights leaves unbuilt, however independent of it, is not begun without the option."""
    _with_nonfinite_weights(space)
    space.recipe("models:\n  broken: {from: ./bad.gguf, quantize: Q8_0}\n  far: {from: ./good.gguf, quantize: Q8_0}\n")

    assert (1, set()) == (space.run("build").status, _manifests(space))
    assert (1, {"far"}) == (space.run("build", "--keep-going").status, _manifests(space))


def test_error_of_one_type_leaves_the_others_of_the_same_weights(space: Space) -> None:
    """Files that would be made from one read fail each for itself when their source is known only by then."""
    space.write("base.gguf", write_gguf())
    space.write("m.imatrix", b"no matrix")
    space.recipe("""models:
  base: {from: ./base.gguf}
  good: {from: {model: base}, quantize: Q8_0}
  bad: {from: {model: base}, quantize: Q4_0, imatrix: ./m.imatrix}
""")

    outcome = space.run("build", "--keep-going")

    assert (1, {"base", "good"}) == (outcome.status, _manifests(space))
    assert "m.imatrix" in outcome.stderr


def test_cache_without_locks_is_told_once_for_all(space: Space) -> None:
    """Types of one checkpoint that were to be packed together all fail for the lock that cannot be taken."""
    copy_checkpoint(space.root / "checkpoint")
    space.write("cache/locks", "")
    models = "".join(f"  {name}: {{from: ./checkpoint, quantize: {name}}}\n" for name in ("Q8_0", "Q4_0"))
    space.recipe(f"models:\n{models}")

    outcome = space.run("build", "--keep-going")

    assert (1, True) == (outcome.status, "cannot lock" in outcome.stderr), outcome.stderr


def _with_nonfinite_weights(space: Space) -> None:
    """bad.gguf, whose weights nobody can pack, which only packing finds out; good.gguf has none of these."""
    space.write("good.gguf", write_gguf(seed=1))
    data = bytearray(write_gguf(seed=2))
    data[-130:-128] = b"\x00\x7c"  # infinity, the last weight of the last matrix
    space.write("bad.gguf", bytes(data))
