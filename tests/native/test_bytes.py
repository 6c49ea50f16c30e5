"""Every code path of the compiled kernels gives the bytes of the numpy reference and of llama.cpp."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from modelbuild.formats.gguf.types import GgmlType, block_bytes, block_size, row_bytes
from modelbuild.quantize import kernels
from modelbuild.quantize.kernel_check import KNOWN_DIGESTS
from modelbuild.quantize.reference import PACKERS
from tests.native.weight_kinds import essential_weight_kinds, importance_kinds, weight_kinds
from tests.unit.quantize.llamacpp_oracle import pack_with_llamacpp

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]
LEVELS = ("baseline", "avx2", "avx512")
#: llama.cpp needs up to nine seconds to prepare the search tables of these; the conformance tests pay that.
SLOW_TO_PREPARE = {GgmlType.IQ1_S, GgmlType.IQ1_M, GgmlType.IQ2_S, GgmlType.IQ2_XS, GgmlType.IQ2_XXS}
Packer = Callable[[Float32, GgmlType, Float32 | None], Uint8]


def _pack(native: ModuleType, level: str, rows: Float32, type_: GgmlType, importance: Float32 | None) -> Uint8:
    out = np.zeros((len(rows), row_bytes(type_, rows.shape[1])), np.uint8)
    grid = kernels.native_grid(type_)
    assert native.pack(int(type_), rows, rows.shape[1], importance, out, level, grid) is None
    return out


def _differing(native: ModuleType, type_: GgmlType, pack_expected: Packer) -> list[str]:
    """Kinds of weights, importance and code path for which the kernels give other bytes; skips without a kernel."""
    can = {GgmlType(row[0]): row[3:] for row in native.packers()}
    if type_ not in can:
        pytest.skip("numpy packs this type")
    plain, weighted, is_grid = can[type_]
    found = []
    for weights_name, rows in essential_weight_kinds() if is_grid else weight_kinds():
        importances: list[tuple[str, Float32 | None]] = [("none", None)] if plain else []
        importances += [(name, values[: rows.shape[1]].copy()) for name, values in importance_kinds() if weighted]
        for importance_name, importance in importances:
            expected = pack_expected(rows, type_, importance)
            found += [
                f"{weights_name}, importance {importance_name}, {level}"
                for level in native.levels()
                if not np.array_equal(expected, _pack(native, level, rows, type_, importance))
            ]
    return found


def _skip_without(native: ModuleType, level: str) -> None:
    if level not in native.levels():
        pytest.skip(f"this processor has no {level}")


@pytest.mark.parametrize("type_", sorted(set(KNOWN_DIGESTS) & set(PACKERS)), ids=lambda type_: type_.name)
def test_equals_the_numpy_reference(native: ModuleType, type_: GgmlType) -> None:
    """All kinds of weights give the bytes of the reference, on every code path."""
    assert [] == _differing(native, type_, lambda rows, type_, importance: PACKERS[type_](rows, importance))


@pytest.mark.llamacpp
@pytest.mark.parametrize("type_", sorted(set(KNOWN_DIGESTS) - SLOW_TO_PREPARE), ids=lambda type_: type_.name)
def test_equals_llamacpp(native: ModuleType, type_: GgmlType) -> None:
    """All kinds of weights give the bytes of llama.cpp's own quantizer, on every code path."""
    assert [] == _differing(native, type_, pack_with_llamacpp)


@pytest.mark.parametrize("level", LEVELS[1:])
@pytest.mark.parametrize("type_", [GgmlType.Q3_K, GgmlType.Q6_K], ids=lambda type_: type_.name)
def test_weights_in_the_middle_between_levels_are_rounded_alike(
    native: ModuleType, type_: GgmlType, level: str
) -> None:
    """Of millions of weights of few bits some lie exactly, others nearly, halfway: all code paths give one level."""
    _skip_without(native, level)
    rows = np.random.default_rng(1).standard_normal((2048, 2048), np.float32) * np.float32(0.02)
    rows = (rows.view(np.uint32) & 0xFFFF0000).view(np.float32)

    expected = _pack(native, "baseline", rows, type_, None)
    assert np.array_equal(expected, _pack(native, level, rows, type_, None))


@pytest.mark.parametrize("level", LEVELS)
def test_any_number_of_blocks_gives_the_bytes_of_each_alone(native: ModuleType, level: str) -> None:
    """Blocks do not depend on how many are packed with them: every count up to a few batches, cut from one result."""
    _skip_without(native, level)
    values = next(weight_kinds())[1].reshape(1, -1)

    for type_ in (GgmlType(row[0]) for row in native.packers() if row[3]):
        size, size_bytes = block_size(type_), block_bytes(type_)
        whole = _pack(native, level, values, type_, None)
        counts = range(1, values.size // size, max(1, 32 // size))
        cut = {count: _pack(native, level, values[:, : count * size].copy(), type_, None) for count in counts}

        assert [] == [c for c, packed in cut.items() if not np.array_equal(whole[:, : c * size_bytes], packed)], type_


@pytest.mark.parametrize("level", LEVELS)
def test_rows_share_the_importance(native: ModuleType, level: str) -> None:
    """With importance, each row is packed as if it were alone, whatever batch it falls into."""
    _skip_without(native, level)
    rows, importance = next(weight_kinds())[1], next(importance_kinds())[1]

    for type_ in (GgmlType(row[0]) for row in native.packers() if row[4]):
        together = _pack(native, level, rows, type_, importance)
        alone = np.vstack([_pack(native, level, rows[i : i + 1], type_, importance) for i in range(len(rows))])

        assert np.array_equal(alone, together), type_
