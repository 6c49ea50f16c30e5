"""A build that is killed or interrupted: the store stays whole, and the next build is right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.space import ROOT, Space
from tests.tinydocs import copy_checkpoint

RECIPE = "model: m\nfrom: ./checkpoint\nquantize: Q8_0\nsystem: Be brief.\nparameters: {temperature: 0}\n"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of an undisturbed build."""
    space = Space(tmp_path_factory.mktemp("expected"))
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    space.build()
    return space.files()


def test_interrupt_ends_with_130_and_leaves_the_store_whole(space: Space, expected: set[str]) -> None:
    """Ctrl-C while weights are packed: exit status 130, one word, nothing visible; the next build finishes."""
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit it ignored\n"
        "from modelbuild.engine import packing\n"
        "real = packing._pack\n"
        "def slow(*arguments):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(*arguments)\n"
        "packing._pack = slow\n"
        "sys.argv = ['modelbuild', 'build', 'recipe.yaml']\n"
        "from modelbuild.cli.main import run\n"
        "run()\n"
    )
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=space.root, env=space.environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (130, "interrupted") == (done.returncode, done.stderr.strip().splitlines()[-1])
    assert time.monotonic() - started_s < 30
    assert "Traceback" not in done.stderr
    assert set() == space.blobs()
    space.build()
    assert expected == space.files()


def test_read_only_store_is_one_clear_error(space: Space) -> None:
    """A models directory that cannot be written: status 1, the path, a hint, no traceback."""
    if os.geteuid() == 0:
        blocked = space.write("models", "a file where the store should be")
    else:
        blocked = space.store
        blocked.mkdir(mode=0o500)
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)

    outcome = space.run("build", "recipe.yaml")

    assert 1 == outcome.status
    assert str(blocked) in outcome.stderr
    assert "hint:" in outcome.stderr
    assert Path(ROOT).exists()
