"""Work on files that are there already: hashing, taking over a GGUF, and editing a prompt of a large model.

usage: python -m benchmarks.store [GIB]

The GGUF is sparse: reading its zeros costs what other bytes cost from the page cache, and writing it costs nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Row, Skipped, as_table

ROOT = Path(__file__).parents[1]

ROUNDS = 3
#: Files as young as their records are read again; old ones are what is usual. Each edit gets a time of its own.
LONG_AGO_S = 1_700_000_000
_HASH = """
import sys, time
from pathlib import Path
from modelbuild.formats.files import open_input
from modelbuild.formats.hashing import digest_of_file
with open_input(Path(sys.argv[1])) as source:
    start = time.process_time()
    digest_of_file(source)
    print(time.process_time() - start)
"""


def rows(quick: bool) -> list[Row | Skipped]:
    """The budgets of the import are meant for files whose hashing takes longer than the start of Python."""
    return compare(1.0 if quick else 4.0, with_budget=not quick)


def compare(gib: float, *, with_budget: bool = True) -> list[Row | Skipped]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        source = make_gguf(place / "big.gguf", gib)
        digest = measure.least(measure.run(["openssl", "dgst", "-sha256", source]) for _ in range(ROUNDS)).cpu_s
        hashing = min(float(measure.output([sys.executable, "-c", _HASH, source])) for _ in range(ROUNDS))
        mib, size = source.stat().st_size / 2**20, f"{gib:g} GiB"
        return [
            Row(f"hash {size}", mib / hashing, "openssl dgst", mib / digest, "MiB / CPU s", ">= 0.9"),
            *imports(place, source, digest, size, "<= 1.1" if with_budget else ""),
            *prompt_edits(place, size),
        ]


def make_gguf(path: Path, gib: float) -> Path:
    """A model of zeros with a header that stands the checks."""
    from modelbuild.formats.gguf.types import GgmlType
    from modelbuild.formats.gguf.writer import lay_out
    from tests.small_gguf import TENSORS, llama_keys

    columns = 1 << 20
    tensors = [(name, tuple(reversed(shape)), GgmlType.F32) for name, shape in TENSORS.items()]
    filler = ("blk.0.ffn_gate.weight", (columns, int(gib * 2**30 / 4 / columns)), GgmlType.F32)
    layout = lay_out(llama_keys(file_type=0), [*tensors, filler])
    with path.open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.file_size)
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    return path


def imports(place: Path, source: Path, digest_cpu_s: float, size: str, budget: str) -> list[Row | Skipped]:
    """Taking over a GGUF that is on the same file system."""
    write_recipe(place, 0)
    costs, extra_bytes = [], 0
    for number in range(ROUNDS):
        env = surroundings(place, number)
        costs.append(measure.run(build_command("--link", "hard"), env=env, cwd=place))
        blobs = Path(env["MODELBUILD_STORE"], "blobs")
        extra_bytes = sum(path.stat().st_blocks * 512 for path in blobs.iterdir() if path.stat().st_nlink == 1)
        assert any(path.samefile(source) for path in blobs.iterdir())
    return [
        Row(f"import of a GGUF, {size}", measure.least(costs).cpu_s, "openssl dgst", digest_cpu_s, "CPU s", budget),
        Row("disk that this takes, with a link", extra_bytes / 1024, "budget", 64, "KiB", "<= 1"),
    ]


def prompt_edits(place: Path, size: str) -> list[Row | Skipped]:
    """A new system prompt for a model that was imported, beside a build with nothing to do."""
    env = surroundings(place, 0)
    blobs = Path(env["MODELBUILD_STORE"], "blobs")
    edits, idle = [], []
    for number in range(1, 2 * ROUNDS + 1):
        before = set(blobs.iterdir())
        write_recipe(place, number)
        edits.append(measure.run(build_command(), env=env, cwd=place))
        measure.run(build_command(), env=env, cwd=place)  # settles what was too young to be trusted
        idle.append(measure.run(build_command(), env=env, cwd=place))
    written_kib = sum(path.stat().st_size for path in set(blobs.iterdir()) - before) / 1024
    ours, none = measure.least(edits).cpu_s * 1000, measure.least(idle).cpu_s * 1000
    return [
        Row(f"prompt edit, model of {size}", ours, "no-op", none, "CPU ms", "<= 1.5"),
        Row("blobs that this writes", written_kib, "budget", 64, "KiB", "<= 1"),
    ]


def write_recipe(place: Path, number: int) -> None:
    """The recipe, and a system prompt that is another one for each number."""
    files = {"recipe.yaml": "model: big\nfrom: ./big.gguf\nsystem: {file: system.txt}\n"}
    files["system.txt"] = f"You answer in {number} words."
    for name, text in files.items():
        (place / name).write_text(text)
        seconds = LONG_AGO_S + (number if name == "system.txt" else 0)
        os.utime(place / name, (seconds, seconds))


def surroundings(place: Path, number: int) -> dict[str, str]:
    """A store and a cache of their own."""
    return os.environ | {
        "MODELBUILD_STORE": str(place / f"models-{number}"), "MODELBUILD_CACHE": str(place / f"cache-{number}"),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def build_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "modelbuild", "--progress", "quiet", "build", *options]


if __name__ == "__main__":
    print(as_table(compare(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)))
