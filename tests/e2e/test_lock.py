"""recipe.lock: written on request, enforced on request."""

from __future__ import annotations

import os

import pytest

from modelbuild.store.lock import share_directory
from tests.space import Space

RECIPE = """models:
  a: {from: 'big:120b', remote_host: 'https://models.example.com', system: One.}
  b: {from: ./b.gguf}
"""


@pytest.fixture
def locked(space: Space) -> Space:
    """A recipe with a GGUF input, built and locked."""
    from modelbuild.formats.gguf.types import GgmlType
    from modelbuild.formats.gguf.writer import lay_out, string, u32

    kv = [string("general.architecture", "llama"), u32("llama.block_count", 1)]
    layout = lay_out(kv, [("output_norm.weight", (8,), GgmlType.F32)])
    space.write("b.gguf", layout.header + bytes(layout.file_size - len(layout.header)))
    space.recipe(RECIPE)
    space.build("--update-lock")
    return space


def test_lock_lists_inputs_and_models_sorted(locked: Space) -> None:
    """One line each, relative paths, sorted."""
    lines = [line.split() for line in (locked.root / "recipe.lock").read_text().splitlines() if line[0] != "#"]

    assert [["input", "b.gguf"], ["model", "a:latest"], ["model", "b:latest"]] == [[line[0], line[2]] for line in lines]


def test_unchanged_recipe_passes(locked: Space) -> None:
    """--locked accepts what was locked, here and in an empty store."""
    assert 0 == locked.run("build", "recipe.yaml", "--locked").status
    assert 0 == locked.run("--store", locked.root / "fresh", "build", "recipe.yaml", "--locked").status


def test_changed_input_is_refused_before_anything_runs(locked: Space) -> None:
    """Exit status 4, both digests, and the store as it was."""
    data = bytearray((locked.root / "b.gguf").read_bytes())
    data[-1] ^= 1
    (locked.root / "b.gguf").unlink()
    locked.write("b.gguf", bytes(data))
    before, runs = locked.files(), locked.run("log").stdout

    outcome = locked.run("build", "recipe.yaml", "--locked")

    assert (4, before) == (outcome.status, locked.files())
    assert "input b.gguf:" in outcome.stderr
    assert runs == locked.run("log").stdout, "what has not begun is no run"


def test_changed_recipe_is_refused_by_its_result(locked: Space) -> None:
    """A prompt edit changes no input file but a model; that is drift as well, and the model stays as it was."""
    locked.recipe(RECIPE.replace("One.", "Two."))
    before = locked.run("list").stdout

    outcome = locked.run("build", "recipe.yaml", "--locked")

    assert (4, True) == (outcome.status, "model a:latest:" in outcome.stderr)
    assert before == locked.run("list").stdout


@pytest.mark.parametrize("name", ["a\nmodel x y.gguf", "a\u2028b.gguf", '"a".gguf', "a\\b.gguf"])
def test_any_name_stays_on_its_line(locked: Space, name: str) -> None:
    """A file is found again under its name, whatever characters that has."""
    (locked.root / "weights").mkdir()
    (locked.root / "b.gguf").rename(locked.root / "weights" / name)
    locked.recipe("model: b\nfiles: ['weights/*.gguf']\n")
    locked.build("--update-lock")

    assert 0 == locked.run("build", "recipe.yaml", "--locked").status


def test_lock_that_cannot_be_written_is_an_error_with_a_hint(locked: Space) -> None:
    """A directory in its place is no internal error."""
    (locked.root / "recipe.lock").unlink()
    (locked.root / "recipe.lock").mkdir()

    outcome = locked.run("build", "recipe.yaml", "--update-lock")

    assert (1, True) == (outcome.status, "error: cannot write recipe.lock" in outcome.stderr), outcome.stderr


def test_update_of_one_model_keeps_the_rest(locked: Space) -> None:
    """--update-lock for one model leaves the lines of the others."""
    before = (locked.root / "recipe.lock").read_text()

    locked.run("build", "recipe.yaml", "a", "--update-lock")

    assert before == (locked.root / "recipe.lock").read_text()


def test_check_confirms_what_was_built(locked: Space) -> None:
    """A rebuild from nothing gives the stored manifests, and leaves store and cache as they were."""
    before = locked.files()

    outcome = locked.run("check", "recipe.yaml")

    assert (0, before) == (outcome.status, locked.files()), outcome.stderr
    assert ["a:latest: the same", "b:latest: the same"] == outcome.stdout.splitlines()
    assert not list(locked.cache.glob("check-*"))


def test_check_tells_what_differs(locked: Space) -> None:
    """An edited recipe differs from what stands in the store; a model on a stored base is compared as well."""
    locked.write("child.yaml", "model: c\nfrom: b\nsystem: Hi.\n")
    locked.run("build", "child.yaml")
    same = locked.run("check", "child.yaml")
    locked.recipe(RECIPE.replace("One.", "Two."))

    outcome = locked.run("check", "recipe.yaml")

    assert (0, "c:latest: the same\n") == (same.status, same.stdout), same.stderr
    assert (1, True) == (outcome.status, "a:latest: differs" in outcome.stdout)


def test_check_removes_what_killed_checks_left(locked: Space) -> None:
    """A scratch store is as large as its models; one that another check works in, or has just made, stays."""
    places = {name: locked.write(f"cache/check-{name}/models/blobs/x", "weights").parents[2] for name in "abc"}
    for name in "ab":
        os.utime(places[name], (1_700_000_000, 1_700_000_000))

    with share_directory(places["b"]):
        assert 0 == locked.run("check", "recipe.yaml").status

    assert ["check-b", "check-c"] == sorted(path.name for path in locked.cache.glob("check-*"))
