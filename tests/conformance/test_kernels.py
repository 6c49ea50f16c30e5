"""All recorded blocks on every code path of the compiled kernels that this processor has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.quantize import kernels
from tests.unit.quantize.block_records import has_digest, read_block_records

LEVELS = ("baseline", "avx2", "avx512")


@pytest.mark.parametrize("level", LEVELS)
def test_recorded_blocks(
    shared: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None], level: str
) -> None:
    """Each type that has a kernel gives the recorded bytes, with and without importance."""
    native = pytest.importorskip("modelbuild.quantize._native", reason="the kernels are not compiled")
    if level not in native.levels():
        pytest.skip(f"this processor has no {level}")
    monkeypatch.setenv(kernels.VARIABLE, level)
    found, equal, different = [], Counter[str](), Counter[str]()
    for record in read_block_records(shared / "golden" / "quantize" / "blocks.json"):
        weights = record.weights()
        for type_, importance, digests in record.outputs():
            if kernels.choose_level(type_, weighted=importance is not None) is None:
                continue
            packed = kernels.pack(weights, type_, importance=importance, path="native")
            is_equal = has_digest(packed, digests["q_sha256"])
            (equal if is_equal else different)[type_.name] += 1
            if not is_equal:
                found.append((record.id, type_.name, importance is not None))
    for name in sorted({*equal, *different}):  # for docs/fidelity.md
        record_property(name, f"{different[name]} of {equal[name] + different[name]} differ")

    assert [] == found
    assert equal.total() > 500
