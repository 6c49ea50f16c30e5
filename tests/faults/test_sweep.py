"""Faults at every change of the disk that a build makes, over a recipe that has one of everything.

A sample runs always; MODELBUILD_ALL_FAULTS=1 runs every point of every fault.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.engine.verify import verify_store
from modelbuild.store.store import Store
from tests.checkpoints import write_checkpoint
from tests.faults.injection import MODES, FaultServer
from tests.small_gguf import write_gguf
from tests.space import Space

RECIPE = """models:
  imported: {from: ./weights.gguf, system: One., license: Mine., outputs: {gguf: ./out.gguf}}
  small: {from: ./checkpoint, quantize: Q8_0, template: "{{ .Prompt }}"}
  plain: {from: ./checkpoint, quantize: F16}
  child: {from: {model: imported}, system: Two., parameters: {temperature: 0}}
"""
ALL = bool(os.environ.get("MODELBUILD_ALL_FAULTS"))
#: Of every mode about this many points, spread evenly, run always.
SAMPLE = 6


def _fill(root: Path) -> Space:
    """A place with the recipe and its inputs."""
    root.mkdir(exist_ok=True)
    space = Space(root)
    write_checkpoint(root / "checkpoint")
    space.write("weights.gguf", write_gguf())
    space.recipe(RECIPE)
    return space


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    server = FaultServer(Space(tmp_path_factory.mktemp("server")).environment())
    yield server
    server.close()


@pytest.fixture(scope="module")
def expected(faults: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], bytes, int]:
    """Files and output of an undisturbed build, and how many changes of the disk it makes."""
    space = _fill(tmp_path_factory.mktemp("expected"))
    done = faults.run(space.root, "kill", 0)
    assert 0 == done.status, done.stderr
    return space.files(), (space.root / "out.gguf").read_bytes(), done.changes


def _check_visible(space: Space, output: bytes) -> None:
    """Every visible blob and manifest is whole, and the output file too, if it is there."""
    for path in (space.store / "blobs").glob("*"):
        assert path.name == f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}"
    if (space.store / "manifests").exists():
        assert () == verify_store(Store(space.store)).damages
    out = space.root / "out.gguf"
    assert not out.exists() or output == out.read_bytes()


def test_the_sweep_has_at_least_200_points(expected: tuple[set[str], bytes, int]) -> None:
    """The recipe makes enough changes of the disk for the whole sweep to mean something."""
    assert 200 <= expected[2]


@pytest.mark.parametrize("mode", MODES)
def test_after_a_fault_at_any_change_the_next_build_is_right(
    faults: FaultServer, expected: tuple[set[str], bytes, int], tmp_path: Path, mode: str
) -> None:
    """Killed, cut in the middle of a write, refused by the disk: nothing visible is damaged, the next build mends."""
    files, output, count = expected
    for point in range(1, count + 2, 1 if ALL else count // SAMPLE):
        space = _fill(tmp_path / "place")
        hurt = faults.run(space.root, mode, point)

        assert hurt.status in ((-9, 0) if mode in ("kill", "tear") else (0, 1)), (point, hurt)
        assert "internal error" not in hurt.stderr, (point, hurt)
        assert hurt.status != 1 or "hint:" in hurt.stderr, (point, hurt)
        _check_visible(space, output)
        mended = faults.run(space.root, "kill", 0)
        assert 0 == mended.status, (point, mended)
        assert files == space.files(), point
        _check_visible(space, output)
        assert (space.root / "out.gguf").exists()
        shutil.rmtree(space.root)


@pytest.mark.parametrize("mode", ["short", "eintr"])
def test_short_writes_and_signals_change_nothing(
    faults: FaultServer, expected: tuple[set[str], bytes, int], tmp_path: Path, mode: str
) -> None:
    """Writes that take only half of the bytes, and a signal every millisecond: the same files."""
    space = _fill(tmp_path / "place")

    done = faults.run(space.root, mode, 0)

    assert 0 == done.status, done.stderr
    assert expected[0] == space.files()
    _check_visible(space, expected[1])
