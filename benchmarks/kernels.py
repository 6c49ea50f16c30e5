"""Millions of weights packed per second of CPU time, beside llama.cpp's own quantizer, type by type.

    python -m benchmarks.kernels                  # all types, every code path of this processor, and numpy
    python -m benchmarks.kernels Q4_K Q8_0 --importance

One thread. Each figure is the best of several runs of the same weights; the runs of all competitors take turns, so that
a busy machine slows all of them. What is packed is compared as well: a wrong byte ends the benchmark.
The ratios are to llama.cpp (`ggml_quantize_chunk` of the xllamacpp wheel). Budgets: 8 for K types, 1.5 for the simple
types and IQ4_NL.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from modelbuild.formats.gguf.types import GgmlType, row_bytes
from modelbuild.quantize import kernels
from modelbuild.quantize.reference import PACKERS
from modelbuild.quantize.targets import SEARCH_NEEDS_IMPORTANCE
from tests.unit.quantize.llamacpp_oracle import pack_with_llamacpp

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]
Job = Callable[[Float32], Uint8]
COLUMNS = 4096
#: Rows for a type that llama.cpp packs at more or less than a million weights per second.
ROWS = {"quick": 256, "slow": 16}
ROUNDS = 7
#: numpy packs only this fraction of the rows, so that nobody waits for it.
NUMPY_SHARE = 8
BUDGETS = {"Q2_K": 8, "Q3_K": 8, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8, "Q8_0": 1.5, "Q4_0": 1.5, "IQ4_NL": 1.5}


def measure(jobs: dict[str, Job], rows: Float32) -> tuple[dict[str, float], dict[str, Uint8]]:
    """Millions of weights per CPU second, and the bytes, of each competitor."""
    best, packed = dict.fromkeys(jobs, float("inf")), {}
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            start = time.thread_time()
            packed[name] = job(rows)
            best[name] = min(best[name], time.thread_time() - start)
    return {name: rows.size / spent / 1e6 for name, spent in best.items()}, packed


def competitors(type_: GgmlType, importance: Float32 | None) -> dict[str, Job]:
    """llama.cpp first, then the code paths that have a kernel for the type, then numpy."""
    jobs: dict[str, Job] = {"llama.cpp": lambda rows: pack_with_llamacpp(rows, type_, importance)}
    native, can = kernels.load_native(), kernels.native_packers().get(type_)
    if native is not None and can is not None and (can.plain if importance is None else can.weighted):
        for level in native.levels():
            jobs[level] = native_job(type_, importance, level)
    jobs["numpy"] = lambda rows: PACKERS[type_](rows[: len(rows) // NUMPY_SHARE], importance)
    return jobs


def native_job(type_: GgmlType, importance: Float32 | None, level: str) -> Job:
    native, grid = kernels.load_native(), kernels.native_grid(type_)
    out = np.empty((0, 0), np.uint8)

    def pack(rows: Float32) -> Uint8:
        nonlocal out
        if len(out) != len(rows):  # made once: fresh pages would cost as much as the packing of a simple type
            out = np.zeros((len(rows), row_bytes(type_, rows.shape[1])), np.uint8)
        native.pack(int(type_), rows, rows.shape[1], importance, out, level, grid)
        return out

    return pack


def report(type_: GgmlType, importance: Float32 | None) -> None:
    is_slow = type_.name.startswith(("IQ1", "IQ2", "IQ3"))
    rows = weights(ROWS["slow" if is_slow else "quick"])
    jobs = competitors(type_, importance)
    rates, packed = measure(jobs, rows)
    rates["numpy"] /= NUMPY_SHARE
    oracle = packed.pop("llama.cpp")
    for name, data in packed.items():
        if not np.array_equal(oracle[: len(data)], data):
            raise SystemExit(f"{type_.name}: {name} gives other bytes than llama.cpp")
    base = rates["llama.cpp"]
    cells = [f"{name} {rate:7.1f} ({rate / base:5.1f}x)" for name, rate in rates.items() if name != "llama.cpp"]
    budget = BUDGETS.get(type_.name, 0) if importance is None else 0
    best = max((rate for name, rate in rates.items() if name not in ("llama.cpp", "numpy")), default=0)
    verdict = "" if not budget else f"  budget {budget}x: {'met' if best >= budget * base else 'MISSED'}"
    kind = f"{type_.name}{'+im' if importance is not None else ''}"
    print(f"{kind:11} llama.cpp {base:7.1f}   {'   '.join(cells)}{verdict}", flush=True)


def weights(count: int) -> Float32:
    """Bell-shaped, as trained weights are."""
    return (np.random.default_rng(1).standard_normal((count, COLUMNS)) * 0.02).astype(np.float32)


def main() -> None:
    """Print one line a type."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="names of types; all when none is given")
    parser.add_argument("--importance", action="store_true", help="with importance, where the type uses it")
    arguments = parser.parse_args()
    chosen = [GgmlType[name.upper()] for name in arguments.types]
    importance = np.random.default_rng(2).random(COLUMNS).astype(np.float32) if arguments.importance else None
    print(f"kernels: {kernels.active_path().reason}; Mw/s per CPU second of one thread, ratio to llama.cpp")
    for type_ in chosen or (type_ for type_ in sorted(PACKERS) if type_ is not GgmlType.F32):
        if importance is None and type_ in SEARCH_NEEDS_IMPORTANCE:
            continue
        report(type_, importance)


if __name__ == "__main__":
    main()
