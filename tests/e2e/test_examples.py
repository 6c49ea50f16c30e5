"""Everything shown to users runs as it stands: the examples and the demonstration."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.space import ROOT, Space

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """A store with the tinydocs example, on which the other examples build."""
    space = Space(tmp_path_factory.mktemp("examples"))
    assert space.run("build", EXAMPLES / "tinydocs" / "recipe.yaml").status == 0
    return space


@pytest.mark.parametrize(
    "recipe", sorted(EXAMPLES.glob("*/*.yaml")) + sorted(EXAMPLES.glob("*/*.json")), ids=lambda path: path.parent.name
)
def test_example_builds(place: Space, recipe: Path) -> None:
    """Each example builds, and a second time there is nothing to do."""
    first, second = place.run("build", recipe), place.run("build", recipe)

    assert [0, 0] == [first.status, second.status], first.stderr + second.stderr
    assert "nothing to do" in second.stderr


def test_demo_script_runs(tmp_path: Path) -> None:
    """The script behind `make demo` builds, shows, and finds nothing to do the second time."""
    import subprocess

    starter = tmp_path / "modelbuild"
    starter.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m modelbuild "$@"\n')
    starter.chmod(0o755)

    done = subprocess.run(
        ["sh", str(EXAMPLES / "demo.sh"), str(starter), str(tmp_path / "demo")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert "helper:latest" in done.stdout
    assert "nothing to do" in done.stderr
