"""A guard against slow kernels: CPU time beside llama.cpp's quantizer, in the same process, taking turns.

The budgets are those of benchmarks/kernels.py. Half of one is the floor here: a busy machine does not matter then,
and a kernel that lost its vectors is found all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from modelbuild.formats.gguf.types import GgmlType, row_bytes
from tests.native.conftest import DIRECTORY
from tests.unit.quantize.llamacpp_oracle import pack_with_llamacpp

#: How many times as fast as llama.cpp each type has to be packed on the code paths with wide vectors.
BUDGETS = {
    GgmlType.Q2_K: 8.0, GgmlType.Q3_K: 8.0, GgmlType.Q4_K: 8.0, GgmlType.Q5_K: 8.0, GgmlType.Q6_K: 8.0,
    GgmlType.Q8_0: 1.5, GgmlType.Q4_0: 1.5, GgmlType.IQ4_NL: 1.5,
}  # fmt: skip
COLUMNS, ROWS, ROUNDS = 4096, 32, 4


def _cpu_s(job: Callable[[], object]) -> float:
    started_s = time.thread_time()
    job()
    return time.thread_time() - started_s


@pytest.mark.skipif(bool(DIRECTORY), reason="a sanitizer makes everything slow")
@pytest.mark.parametrize("level", ["avx2", "avx512"])
@pytest.mark.parametrize("type_", BUDGETS, ids=lambda type_: type_.name)
def test_is_far_faster_than_llamacpp(native: ModuleType, type_: GgmlType, level: str) -> None:
    """At least half of the budget on every code path with wide vectors that this processor has."""
    if level not in native.levels():
        pytest.skip(f"this processor has no {level}")
    rows = (np.random.default_rng(1).standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)
    out = np.empty((ROWS, row_bytes(type_, COLUMNS)), np.uint8)

    theirs_s = ours_s = float("inf")
    for _ in range(ROUNDS):
        theirs_s = min(theirs_s, _cpu_s(lambda: pack_with_llamacpp(rows, type_, None)))
        ours_s = min(ours_s, _cpu_s(lambda: native.pack(int(type_), rows, COLUMNS, None, out, level, None)))

    assert theirs_s / ours_s >= BUDGETS[type_] / 2
