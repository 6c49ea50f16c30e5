"""A checkpoint to five types from one read, its disk, and a build after one tensor changed.

usage: python -m benchmarks.fan_out [GIB]
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks import checkpoint, measure
from benchmarks.measure import Row, as_table

ROOT = Path(__file__).parents[1]

TYPES = ("Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "Q3_K_M")
#: How often the disk is looked at. A file that is being written has its place from the beginning.
LOOK_EVERY_S = 0.05


def rows(quick: bool) -> list[Row]:
    """The budget of the changed tensor is meant for models of a gigabyte, where starting Python does not count."""
    return compare(0.125 if quick else 1.0, with_budget=not quick)


def compare(gib: float, *, with_budget: bool = True) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        count = checkpoint.make_checkpoint(place / "checkpoint", gib)
        size = f"{count / 1e6:.0f} M weights"
        return [
            *five_types(place, size),
            *one_type(place, size),
            changed_tensor(place, size, "<= 1.2" if with_budget else ""),
        ]


def five_types(place: Path, size: str) -> list[Row]:
    """All types in one build beside a build for each; where they come from is read once for all of them."""
    apart = sum(_build(place, [type_], type_).cpu_s for type_ in TYPES)
    together = _build(place, TYPES, "together")
    return [
        Row(f"five types from one read, {size}", together.cpu_s, "five builds", apart, "CPU s", "<= 1"),
        Row("peak memory of that", together.peak_mib, "budget", 400, "MiB", "<= 1"),
    ]


def one_type(place: Path, size: str) -> list[Row]:
    """What a build takes up on the disk while it runs: the result and little else."""
    with _most_disk_mib(place / "one") as most:
        _build(place, ["Q4_K_M"], "one")
    result_mib = _result(place).stat().st_size / 2**20
    return [Row(f"disk while building Q4_K_M, {size}", most[0], "result + 64 MiB", result_mib + 64, "MiB", "<= 1")]


def changed_tensor(place: Path, size: str, budget: str) -> Row:
    """The same build after an edit of one tensor, beside hashing its source and copying its result with other tools."""
    source = place / "checkpoint" / "model.safetensors"
    costs = []
    for number in range(3):
        _change_end(source, number)
        costs.append(_build(place, ["Q4_K_M"], "one"))
    digest = measure.least(measure.run(["openssl", "dgst", "-sha256", source]) for _ in range(3)).cpu_s
    copy = measure.least(measure.run(["cp", _result(place), place / "copy"]) for _ in range(3)).cpu_s
    ours = measure.least(costs).cpu_s
    return Row(f"one tensor changed, {size}", ours, "openssl source + cp result", digest + copy, "CPU s", budget)


def _build(place: Path, types: Sequence[str], name: str) -> measure.Cost:
    """Build types of the checkpoint with the store and the cache of this name."""
    models = "".join(f"  m-{type_}: {{from: ./checkpoint, quantize: {type_}}}\n" for type_ in types)
    (place / "recipe.yaml").write_text(f"models:\n{models}")
    env = os.environ | {
        "MODELBUILD_STORE": str(place / name / "models"), "MODELBUILD_CACHE": str(place / name / "cache"),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "modelbuild", "--progress", "quiet", "build", place / "recipe.yaml"]
    return measure.run(command, env=env)


def _result(place: Path) -> Path:
    return max((place / "one" / "models" / "blobs").iterdir(), key=lambda path: path.stat().st_size)


def _change_end(source: Path, number: int) -> None:
    """Other weights at the end of the file, where a tensor of the last layer lies."""
    with source.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes([number, 0x3C]) * 2048)


@contextmanager
def _most_disk_mib(directory: Path) -> Iterator[list[float]]:
    """The most that all files below a directory take up while the block runs."""
    most, is_over = [0.0], threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK_EVERY_S):
            most[0] = max(most[0], _disk_mib(directory))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        is_over.set()
        thread.join()
        most[0] = max(most[0], _disk_mib(directory))


def _disk_mib(directory: Path) -> float:
    taken = 0
    for path in directory.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            taken += path.lstat().st_blocks * 512
    return taken / 2**20


if __name__ == "__main__":
    print(as_table(compare(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)))
