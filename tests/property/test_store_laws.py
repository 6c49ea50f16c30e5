"""Laws of the store: whatever was built, edited, removed and collected, blobs are exactly what manifests name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from modelbuild.engine.verify import verify_store
from modelbuild.store.store import Store
from tests.space import Space

SEQUENCES, STEPS = 6, 8
TEXTS = ("One.", "Two.", "Three.")
MODELS = ("a", "b", "c")


def _recipe(choose: random.Random) -> str:
    """One to three models with texts that they may share; the last one may start from the first."""
    lines = ["models:"]
    for name in MODELS[: choose.randint(1, 3)]:
        if name == "c" and choose.random() < 0.5:
            source = "from: {model: a}"
        else:
            source = "from: 'big:120b', remote_host: 'https://models.example.com'"
        license_ = ", license: Mine." if choose.random() < 0.5 else ""
        lines.append(f"  {name}: {{{source}, system: {choose.choice(TEXTS)}{license_}}}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_blobs_are_the_union_of_manifests(tmp_path: Path, seed: int) -> None:
    """Random builds, edits, removals and collections; after each gc and after each build nothing is too much."""
    choose, space = random.Random(seed), Space(tmp_path)
    space.recipe(_recipe(choose))
    for _ in range(STEPS):
        step = choose.choice(("build", "build", "edit", "rm", "gc", "force"))
        if step == "edit":
            space.recipe(_recipe(choose))
        elif step == "rm":
            there = Store(space.store).models()
            if there:
                assert 0 == space.run("rm", str(choose.choice(there).name)).status
        elif step == "gc":
            assert 0 == space.run("gc", "--older-than", "0").status
        else:
            space.build(*(["--force"] if step == "force" else []))
        store = Store(space.store)
        assert {name.replace("-", ":", 1) for name in space.blobs()} == store.used_blobs(), step
        assert () == verify_store(store).damages
    space.build()
    assert "nothing to do" in space.build().stderr
