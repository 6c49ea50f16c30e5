"""The numpy packers and unpackers against recorded bytes and against llama.cpp itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from modelbuild.formats.gguf.types import GgmlType, block_size, row_bytes
from modelbuild.quantize import pack
from modelbuild.quantize.kernels import Path as KernelPath
from modelbuild.quantize.reference import PACKERS, UNPACKERS, rows
from modelbuild.quantize.targets import TARGET_TYPES
from tests.unit.quantize.block_records import BlockRecord, read_block_records
from tests.unit.quantize.llamacpp_oracle import pack_with_llamacpp, unpack_with_llamacpp

Float32 = npt.NDArray[np.float32]
RECORDS = read_block_records(Path(__file__).parents[2] / "data" / "quantize" / "blocks.json")
by_type = pytest.mark.parametrize("type_", sorted(TARGET_TYPES), ids=lambda type_: type_.name)
#: llama.cpp needs seconds to prepare the large grids; those types are compared with it in tests/conformance.
LARGE_GRIDS = {GgmlType.IQ1_S, GgmlType.IQ1_M, GgmlType.IQ2_XXS, GgmlType.IQ2_XS, GgmlType.IQ2_S}
by_quick_type = pytest.mark.parametrize("type_", sorted(TARGET_TYPES - LARGE_GRIDS), ids=lambda type_: type_.name)


def test_every_target_can_be_packed_and_decoded() -> None:
    """The tables are complete; Q8_K, which is never a target, can be decoded as well."""
    assert set(TARGET_TYPES) == set(PACKERS)
    assert {*TARGET_TYPES, GgmlType.Q8_K} == set(UNPACKERS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.id)
def test_recorded_bytes(record: BlockRecord) -> None:
    """Each type gives the recorded bytes, with and without importance, and they decode to the recorded floats."""
    pack = lambda weights, type_, importance: PACKERS[type_](weights, importance)  # noqa: E731

    assert [] == record.differing(pack, lambda packed, type_, _shape: UNPACKERS[type_](packed))


def _weights(shape: tuple[int, int]) -> Iterator[tuple[str, Float32]]:
    rng = np.random.default_rng(11)
    normal = (rng.standard_normal(shape) * 0.02).astype(np.float32)
    yield "normal", normal
    yield "heavy tails", (rng.standard_t(1.5, shape) * 0.02).astype(np.float32)
    yield "sparse, negative zeros", np.where(rng.random(shape) < 0.1, normal, np.float32(-0.0))
    yield "empty groups", np.where(np.repeat(rng.random((shape[0], shape[1] // 16)) < 0.5, 16, axis=1), normal, 0)
    yield "magnitudes", (10.0 ** rng.uniform(-9, 3, shape) * rng.choice([-1, 1], shape)).astype(np.float32)
    yield "below powers of two", np.nextafter(np.exp2(rng.integers(-9, 9, shape)).astype(np.float32), np.float32(0))
    yield "denormal", (normal.astype(np.float64) * 1e-38).astype(np.float32)
    yield "constant", np.full(shape, np.float32(-0.37))


def _importances(columns: int) -> Iterator[tuple[str, Float32 | None]]:
    rng = np.random.default_rng(12)
    uniform = rng.random(columns).astype(np.float32)
    yield "none", None
    yield "uniform", uniform
    yield "partly zero", np.where(rng.random(columns) < 0.5, uniform, np.float32(0))


@pytest.mark.llamacpp
@by_quick_type
def test_bytes_are_those_of_llamacpp(type_: GgmlType) -> None:
    """Kinds of weights that take the searches to their corners, each with three kinds of importance."""
    found = []
    for name, weights in _weights((2, 512)):
        for what, importance in _importances(512):
            expected = pack_with_llamacpp(weights, type_, importance)
            if not np.array_equal(expected, PACKERS[type_](weights, importance)):
                found.append(f"{name}, importance {what}")

    assert [] == found


@pytest.mark.llamacpp
@by_quick_type
def test_a_single_block_is_packed_as_by_llamacpp(type_: GgmlType) -> None:
    """One block alone makes lane arrays of one column, which numpy would sum in another order."""
    size = block_size(type_)
    size = size if size > 1 else 32
    importance = np.random.default_rng(3).random(size).astype(np.float32)
    for seed in range(4):
        weights = np.random.default_rng(seed).standard_normal((1, size)).astype(np.float32)
        assert np.array_equal(pack_with_llamacpp(weights, type_, importance), PACKERS[type_](weights, importance))


@pytest.mark.llamacpp
@pytest.mark.parametrize("type_", sorted(UNPACKERS), ids=lambda type_: type_.name)
def test_any_bytes_decode_as_in_llamacpp(type_: GgmlType) -> None:
    """Random bytes, so every code and scale occurs, NaN and infinite scales included."""
    data = np.random.default_rng(4).integers(0, 256, (8, row_bytes(type_, 1024)), dtype=np.uint8)

    expected, actual = unpack_with_llamacpp(data, type_, 1024), UNPACKERS[type_](data)

    same = (expected.view(np.uint32) == actual.view(np.uint32)) | (np.isnan(expected) & np.isnan(actual))
    assert same.all()


@by_type
def test_tiles_do_not_show(type_: GgmlType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting rows into tiles, or rows into parts, changes no byte; the importance follows the columns."""
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((3, 768)).astype(np.float32)
    importance = rng.random(768).astype(np.float32)
    whole = PACKERS[type_](weights, importance)

    for tile_weights in (256, 512, 1536):
        monkeypatch.setattr(rows, "TILE_WEIGHTS", tile_weights)
        assert np.array_equal(whole, PACKERS[type_](weights, importance)), tile_weights
        alone = [PACKERS[type_](weights[row : row + 1], importance) for row in range(3)]
        assert np.array_equal(whole, np.vstack(alone)), tile_weights


@pytest.mark.parametrize("path", ["numpy", "auto"])
@pytest.mark.parametrize(
    ("type_", "seed", "digest"),
    [
        (GgmlType.Q2_K, 18, "1cbf9861015c977f"),
        (GgmlType.Q2_K, 28, "c3a55b46bc7264c2"),
        (GgmlType.Q4_K, 12, "75767beaf4631776"),
        (GgmlType.Q4_K, 39, "1897c1737a738b75"),
        (GgmlType.Q5_K, 12, "a5310400a5822c31"),
        (GgmlType.Q5_K, 84, "4ecb6e2e8fd7e81a"),
    ],
)
def test_scale_that_cancellation_makes_negative(type_: GgmlType, seed: int, digest: str, path: KernelPath) -> None:
    """Where few values count, a scale can come out negative; llama.cpp keeps its byte (recorded from it)."""
    rng = np.random.default_rng(seed)
    drift = np.arange(4096) - 2048 + 10 * rng.standard_normal(4096)
    weights = (drift * np.float32(1e-3)).astype(np.float32)[np.newaxis]
    importance = np.where(rng.random(4096) < 0.05, 1e6, 1e-6).astype(np.float32)

    assert digest == hashlib.sha256(pack(weights, type_, importance=importance, path=path).tobytes()).hexdigest()[:16]


@by_type
def test_no_rows_and_no_columns(type_: GgmlType) -> None:
    """Empty tensors pack to nothing."""
    assert (0, row_bytes(type_, 256)) == PACKERS[type_](np.zeros((0, 256), np.float32), None).shape
    assert (3, 0) == PACKERS[type_](np.zeros((3, 0), np.float32), None).shape


@by_type
def test_overflow_does_not_break_the_search(type_: GgmlType) -> None:
    """Weights whose squares overflow give some bytes, no crash; `pack` refuses them by their scale."""
    weights = np.full((1, 256), np.float32(3e38)) * np.random.default_rng(6).choice([-1, 1], (1, 256))
    importance = np.ones(256, np.float32)

    packed = PACKERS[type_](weights.astype(np.float32), importance)

    assert (1, row_bytes(type_, 256)) == packed.shape
