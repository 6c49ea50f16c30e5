"""A run that was killed while it packed: the next one continues where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.space import Space
from tests.tinydocs import copy_checkpoint

RECIPE = "model: m\nfrom: ./checkpoint\nquantize: Q4_K_M\n"
_KILL_AFTER_BLOCKS = """
import os, signal, sys
from modelbuild.store.partial import PartialFile
limit, done, real = int(sys.argv[1]), 0, PartialFile.note_written
def note(self, block, check):
    global done
    real(self, block, check)
    done += 1
    if done == limit:
        os.kill(os.getpid(), signal.SIGKILL)
PartialFile.note_written = note
sys.argv = ["modelbuild", "--progress", "json", "build", "recipe.yaml"]
from modelbuild.cli.main import run
run()
"""


@pytest.fixture
def killed(space: Space) -> Space:
    """A build that was killed after ten blocks."""
    copy_checkpoint(space.root / "checkpoint")
    space.recipe(RECIPE)
    done = subprocess.run(
        [sys.executable, "-c", _KILL_AFTER_BLOCKS, "10"],
        cwd=space.root, env=space.environment(), capture_output=True, check=False, timeout=60, text=True,
    )  # fmt: skip
    space.write("killed.jsonl", done.stdout)
    assert set() == space.blobs()
    return space


@pytest.fixture
def packed_blocks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tensors of all blocks that are packed."""
    from modelbuild.engine import packing

    calls: list[str] = []
    real = packing._pack

    def counting(part, rows):  # type: ignore[no-untyped-def]
        calls.append(part.tensor.name)
        return real(part, rows)

    monkeypatch.setattr(packing, "_pack", counting)
    return calls


def _blocks_in_all(space: Space, packed_blocks: list[str]) -> int:
    other = Space(space.root / "other")
    other.root.mkdir()
    other.recipe(RECIPE.replace("./checkpoint", "../checkpoint"))
    other.build()
    assert space.blobs() in (set(), other.blobs())
    count = len(packed_blocks)
    packed_blocks.clear()
    return count


def test_finished_blocks_are_not_packed_again(killed: Space, packed_blocks: list[str]) -> None:
    """The second run packs all blocks but the ten that were written, and leaves nothing behind."""
    count = _blocks_in_all(killed, packed_blocks)

    killed.build()

    assert count - 10 == len(packed_blocks)
    assert {"blobs", "manifests"} == {path.name for path in killed.store.iterdir()}
    assert killed.blobs() == Space(killed.root / "other").blobs()


@pytest.mark.parametrize("damage", ["bytes", "journal", "journal cut", "file gone"])
def test_damaged_partial_file_costs_time_only(killed: Space, packed_blocks: list[str], damage: str) -> None:
    """Whatever happened to the partial file or its journal, the result is that of an undisturbed build."""
    partial = next((killed.store / ".modelbuild").glob("partial-*[0-9a-f]"))
    journal = partial.with_name(partial.name + ".journal")
    if damage == "bytes":
        data = bytearray(partial.read_bytes())
        data[300_000] ^= 0xFF
        partial.write_bytes(data)
    elif damage == "journal":
        journal.write_bytes(b"\0" * 1000)
    elif damage == "journal cut":
        journal.write_bytes(journal.read_bytes()[:-7])
    else:
        partial.unlink()

    killed.build()

    packed_blocks.clear()
    _blocks_in_all(killed, packed_blocks)


def _progress(output: str) -> list[int]:
    """The bytes written, as the events of a run tell them; young sources are read before, with events of their own."""
    events = [event for event in map(json.loads, output.splitlines()) if event["event"] == "action-progress"]
    return [event["done_bytes"] for event in events if event["total_bytes"] == events[-1]["total_bytes"]]


def test_what_was_packed_before_counts_as_done_from_the_start(killed: Space) -> None:
    """Progress goes on about where the killed run was, instead of beginning anew, and never goes back."""
    before = _progress((killed.root / "killed.jsonl").read_text())

    after = _progress(killed.run("--progress", "json", "build", "recipe.yaml").stdout)

    assert after == sorted(after)
    assert before[-1] * 0.9 <= after[0]
    assert before[0] * 2 < after[0]
    assert _progress(killed.run("--progress", "json", "build", "recipe.yaml", "--force").stdout)[-1] == after[-1]
