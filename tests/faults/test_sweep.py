"""Faults at every change of the disk that a build makes, over recipes that have one of everything.

A store holds the models of an older recipe. Then the newer one is built, which converts, quantizes, imports, exports,
replaces models so that blobs are pruned, and gc runs. SIGKILL is tried at 200 points always, the other faults at a
sample; MODELBUILD_ALL_FAULTS=1 tries every fault at every point.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from modelbuild.engine.verify import verify_store
from modelbuild.store.store import Store
from tests.adapters import write_adapter
from tests.checkpoints import write_checkpoint
from tests.faults.injection import BUILD, GC, MODES, NO_FAULT, Fault, FaultServer, fault_server
from tests.small_gguf import write_gguf
from tests.space import Space

OLD = """models:
  imported: {from: ./weights.gguf, system: Old.}
  small: {from: ./checkpoint, pre_tokenizer: llama-bpe, quantize: F16}
"""
NEW = """models:
  imported: {from: ./weights.gguf, system: One., license: Mine., outputs: {gguf: ./out.gguf}}
  small: {from: ./checkpoint, pre_tokenizer: llama-bpe, quantize: Q8_0, template: "{{ .Prompt }}"}
  tuned: {from: {model: small}, adapters: ./adapter}
  child: {from: {model: imported}, system: Two., parameters: {temperature: 0}}
"""
WORK = ((*BUILD, "--update-lock"), GC)
ALL = bool(os.environ.get("MODELBUILD_ALL_FAULTS"))
#: How many points are tried always, spread evenly.
KILLS, SAMPLE = 200, 6
#: The kills are split, so that several workers can share them.
PARTS = 4


@dataclass(frozen=True)
class Reference:
    """A place before the work, and what undisturbed work makes of it."""

    before: Path
    files: set[str]
    output: bytes
    changes: int


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    with fault_server(Space(tmp_path_factory.mktemp("server")).environment()) as server:
        yield server


@pytest.fixture(scope="module")
def reference(faults: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    space = Space(tmp_path_factory.mktemp("reference") / "before")
    write_checkpoint(space.root / "checkpoint")
    pair = (np.ones((2, 32), np.float32), np.ones((32, 2), np.float32))
    write_adapter(space.root / "adapter", {"model.layers.0.self_attn.q_proj": pair}, r=2)
    space.write("weights.gguf", write_gguf())
    space.recipe(OLD)
    done = faults.run(space.root, NO_FAULT)
    assert 0 == done.status, done.stderr
    space.recipe(NEW)
    after = Space(space.root.with_name("after"))
    shutil.copytree(space.root, after.root)
    done = faults.run(after.root, NO_FAULT, *WORK)
    assert 0 == done.status, done.stderr
    assert not space.blobs() <= after.blobs(), "nothing was pruned"
    return Reference(space.root, after.files(), (after.root / "out.gguf").read_bytes(), done.changes)


def _check_visible(space: Space, output: bytes) -> None:
    """Every visible blob and manifest is whole, and the output file and the lock file too, if they are there."""
    assert () == verify_store(Store(space.store)).damages
    out, lock = space.root / "out.gguf", space.root / "recipe.lock"
    assert not out.exists() or output == out.read_bytes()
    assert not lock.exists() or 4 == lock.read_text().count("\nmodel ")


def _points(mode: str, changes: int) -> list[int]:
    wanted = KILLS if mode == "kill" else SAMPLE
    return list(range(1, changes + 1, 1 if ALL else max(1, changes // wanted)))


def test_the_sweep_has_at_least_200_points(reference: Reference) -> None:
    """The work makes enough changes of the disk for the sweep to mean something."""
    assert 200 <= len(_points("kill", reference.changes))


@pytest.mark.parametrize(
    ("mode", "part"), [*(("kill", part) for part in range(PARTS)), *((mode, None) for mode in MODES if mode != "kill")]
)
def test_after_a_fault_at_any_change_the_next_build_is_right(
    faults: FaultServer, reference: Reference, tmp_path: Path, mode: str, part: int | None
) -> None:
    """Killed, cut in the middle of a write, refused by the disk: nothing visible is damaged, the next run mends all."""
    for point in _points(mode, reference.changes)[part :: 1 if part is None else PARTS]:
        space = Space(tmp_path / str(point))
        shutil.copytree(reference.before, space.root)
        hurt = faults.run(space.root, Fault(mode, point), *WORK)

        assert hurt.status in ((-9,) if mode == "kill" else (-9, 0) if mode == "tear" else (0, 1)), (point, hurt)
        assert hurt.is_clean, (point, hurt)
        _check_visible(space, reference.output)
        mended = faults.run(space.root, NO_FAULT, *WORK)
        assert 0 == mended.status, (point, mended)
        assert reference.files == space.files(), point
        _check_visible(space, reference.output)
        assert [] == _leftovers(space), point
        shutil.rmtree(space.root)


def _leftovers(space: Space) -> list[str]:
    """Files beside the recipe and locks that should not have stayed."""
    known = {"adapter", "cache", "checkpoint", "models", "out.gguf", "recipe.lock", "recipe.yaml", "stderr"}
    return [
        *sorted(path.name for path in space.root.iterdir() if path.name not in {*known, "weights.gguf"}),
        *sorted(path.name for path in space.store.iterdir() if path.name not in ("blobs", "manifests")),
    ]


@pytest.mark.parametrize("mode", ["short", "eintr"])
def test_short_writes_and_signals_change_nothing(
    faults: FaultServer, reference: Reference, tmp_path: Path, mode: str
) -> None:
    """Writes that take only half of the bytes, and a signal every millisecond: the same files."""
    space = Space(tmp_path / "place")
    shutil.copytree(reference.before, space.root)

    done = faults.run(space.root, Fault(mode), *WORK)

    assert 0 == done.status, done.stderr
    assert reference.files == space.files()
    _check_visible(space, reference.output)
