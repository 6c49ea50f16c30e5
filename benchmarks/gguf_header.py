"""Opens the header of a model with a large vocabulary, side by side with the reader of the gguf package.

The file is generated: 150,000 tokens with scores and types, 300,000 merges, 300 tensors without data worth reading.
Each reader runs in a process of its own; figures are CPU seconds of opening and growth of the resident set.

    python -m benchmarks.gguf_header
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOKENS, MERGES, TENSORS = 150_000, 300_000, 300
BUDGET_CPU_S, BUDGET_MIB = 0.1, 40
#: Other work on the machine makes CPU seconds longer too: the least of many runs is what the reader takes.
ROUNDS = 20

OURS = """
from pathlib import Path
from modelbuild.formats.gguf.reader import open_gguf
def read(path): return open_gguf(Path(path)).kv.get_u32('llama.block_count')
"""
THEIRS = """
from gguf import GGUFReader
def read(path): return GGUFReader(path).fields['llama.block_count'].contents()
"""
_MEASURE = """
import json, sys, time
def mib(field):
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))
before = mib('VmRSS')
start = time.process_time()
value = read(sys.argv[1])
seconds = time.process_time() - start
print(json.dumps({'cpu_s': seconds, 'mib': mib('VmHWM') - before}))
"""


def make_file(path: Path) -> float:
    """Write the file; returns the CPU seconds of laying out its header."""
    from modelbuild.formats.gguf import writer
    from modelbuild.formats.gguf.types import GgmlType

    chance = random.Random(1)
    tokens = [_word(chance, 1, 12) for _ in range(TOKENS)]
    merges = [_word(chance, 3, 18) for _ in range(MERGES)]
    tensors = [(f"blk.{index}.attn_q.weight", (256,), GgmlType.F32) for index in range(TENSORS)]
    start = time.process_time()
    kv = [
        writer.string("general.architecture", "llama"),
        writer.strings("tokenizer.ggml.tokens", tokens),
        writer.f32_array("tokenizer.ggml.scores", [0.0] * TOKENS),
        writer.i32_array("tokenizer.ggml.token_type", [1] * TOKENS),
        writer.strings("tokenizer.ggml.merges", merges),
        writer.u32("llama.block_count", 32),
    ]
    layout = writer.lay_out(kv, tensors)
    seconds = time.process_time() - start
    path.write_bytes(layout.header + bytes(layout.file_size - layout.data_offset))
    return seconds


def _word(chance: random.Random, shortest: int, longest: int) -> str:
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyzĠé", k=chance.randint(shortest, longest)))


def measure(code: str, path: Path, rounds: int) -> dict[str, float]:
    """The best CPU time and the highest memory growth of some runs."""
    runs = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", code + _MEASURE, str(path)], check=True, capture_output=True, text=True
        )
        runs.append(json.loads(done.stdout))
    return {"cpu_s": min(run["cpu_s"] for run in runs), "mib": max(run["mib"] for run in runs)}


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "vocabulary.gguf"
        layout_s = make_file(path)
        ours, theirs = measure(OURS, path, ROUNDS), measure(THEIRS, path, 1)
    print(f"lay out the header   {layout_s:8.3f} CPU s")
    for name, run in (("modelbuild", ours), ("gguf.GGUFReader", theirs)):
        print(f"open, {name:15}{run['cpu_s']:8.3f} CPU s {run['mib']:9.1f} MiB")
    print(f"ratio                {theirs['cpu_s'] / ours['cpu_s']:8.0f} x     {theirs['mib'] / ours['mib']:9.0f} x")
    is_within = ours["cpu_s"] <= BUDGET_CPU_S and ours["mib"] <= BUDGET_MIB
    print(f"budget {BUDGET_CPU_S} CPU s, {BUDGET_MIB} MiB: {'kept' if is_within else 'BROKEN'}")
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
