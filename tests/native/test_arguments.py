"""The extension checks what it is given before the kernels touch it."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from modelbuild.formats.gguf.types import GgmlType
from modelbuild.quantize.reference import PACKERS

Q3_K, Q4_K, Q8_0 = 11, 12, 8


def _arguments(**changes: object) -> list[object]:
    given: dict[str, object] = {
        "type": Q4_K,
        "weights": np.ones((2, 512), np.float32),
        "columns": 512,
        "importance": None,
        "out": np.zeros(576, np.uint8),
        "level": "baseline",
    }
    return list((given | changes).values())


def _unaligned(count: int) -> np.ndarray:
    return np.zeros(count * 4 + 1, np.uint8)[1:].view(np.float32)


_SHARED = np.zeros(4096, np.uint8)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"type": 9}, ValueError, "no kernel packs type 9"),
        ({"type": -1}, ValueError, "no kernel packs type -1"),
        ({"type": 1 << 20}, ValueError, "no kernel packs type 1048576"),
        ({"type": 0}, ValueError, "no kernel packs type 0"),
        ({"level": "sse9"}, ValueError, "no code path named 'sse9'"),
        ({"columns": 0}, ValueError, "columns: a positive multiple of 256 expected, found 0"),
        ({"columns": -512}, ValueError, "found -512"),
        ({"columns": 100}, ValueError, "found 100"),
        ({"columns": 768}, ValueError, "1024 values are not whole rows of 768"),
        ({"weights": np.ones(1024, np.float64)}, TypeError, "weights: items of format 'f' expected, found 'd'"),
        ({"weights": np.ones(1024, np.int32)}, TypeError, "weights: items of format 'f' expected, found 'i'"),
        ({"weights": np.ones((512, 2), np.float32).T}, (ValueError, BufferError), "contiguous"),
        ({"weights": np.ones((2, 1024), np.float32)[:, ::2]}, (ValueError, BufferError), "contiguous"),
        ({"weights": _unaligned(1024)}, ValueError, "weights: not aligned to 4 bytes"),
        ({"weights": None}, TypeError, "bytes-like"),
        ({"importance": np.ones(511, np.float32)}, ValueError, "importance: 512 values expected, found 511"),
        ({"importance": np.ones(512, np.float64)}, TypeError, "importance: items of format 'f'"),
        ({"importance": _unaligned(512)}, ValueError, "importance: not aligned"),
        ({"out": np.zeros(575, np.uint8)}, ValueError, "out: 576 bytes expected, found 575"),
        ({"out": np.zeros(577, np.uint8)}, ValueError, "out: 576 bytes expected, found 577"),
        ({"out": np.zeros(576, np.int8)}, TypeError, "out: items of format 'B' expected"),
        ({"out": bytes(576)}, BufferError, "writable"),
        ({"weights": _SHARED.view(np.float32), "out": _SHARED[:576]}, ValueError, "must not overlap"),
        (
            {"importance": _SHARED[:2048].view(np.float32), "out": _SHARED[2000:2576]},
            ValueError,
            "must not overlap",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    native: ModuleType, changes: dict[str, object], error: type[Exception], text: str
) -> None:
    """Each kind of wrong argument raises before anything is written."""
    out = changes.get("out")
    before = np.array(out) if isinstance(out, np.ndarray) else None

    with pytest.raises(error, match=text):
        native.pack(*_arguments(**changes))

    assert before is None or np.array_equal(before, np.array(out))


@pytest.mark.parametrize("type_", [Q4_K, Q3_K], ids=["looked for beforehand", "noticed while packing"])
@pytest.mark.parametrize("place", [0, 5, 1023, 1024, 2047])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_first_nonfinite_weight_is_reported(native: ModuleType, type_: int, place: int, value: float) -> None:
    """pack and find_nonfinite give the index of the first weight that is not finite."""
    weights = np.ones((4, 512), np.float32)
    out = np.zeros(4 * (288 if type_ == Q4_K else 220), np.uint8)

    for filled in (slice(place, None), slice(place, place + 1)):
        weights[:] = 1
        weights.reshape(-1)[filled] = value
        for level in native.levels():
            assert place == native.pack(type_, weights, 512, None, out, level)
        assert place == native.find_nonfinite(weights)


def test_sums_that_overflow_are_not_taken_for_infinite_weights(native: ModuleType) -> None:
    """Weights whose squares are infinite are packed, and as the reference packs them."""
    weights = np.full((1, 512), 3e38, np.float32)
    weights[0, ::3] = -2e30
    expected = PACKERS[GgmlType.Q3_K](weights, None)

    for level in native.levels():
        out = np.zeros((1, 220), np.uint8)
        assert native.pack(Q3_K, weights, 512, None, out, level) is None
        assert np.array_equal(expected, out)


def test_greatest_finite_weights_are_finite(native: ModuleType) -> None:
    """The largest float is not taken for infinity; no weights at all are fine."""
    weights = np.full(1025, np.finfo(np.float32).max, np.float32)

    assert native.find_nonfinite(weights) is None
    assert native.find_nonfinite(-weights) is None
    assert native.find_nonfinite(weights[:0]) is None


def test_no_rows_are_fine(native: ModuleType) -> None:
    """Packing nothing writes nothing."""
    empty = np.zeros((0, 512), np.float32)

    assert native.pack(Q4_K, empty, 512, None, np.zeros(0, np.uint8), "baseline") is None


def test_buffers_are_released(native: ModuleType) -> None:
    """After calls that succeed and calls that fail, nobody holds the arguments."""
    weights, out = np.ones(512, np.float32), np.zeros(288, np.uint8)
    importance = np.ones(512, np.float32)
    counts = [sys.getrefcount(item) for item in (weights, out, importance)]

    for _ in range(10):
        native.pack(Q4_K, weights, 512, importance, out, "baseline")
        with pytest.raises(ValueError, match="out:"):
            native.pack(Q8_0, weights, 512, importance, out, "baseline")
        with pytest.raises(TypeError):
            native.pack(Q4_K, weights, 512, None, importance, "baseline")

    assert counts == [sys.getrefcount(item) for item in (weights, out, importance)]


_HALVES = np.arange(1 << 16, dtype=np.uint16)


def test_halves_widen_and_narrow_as_numpy_does(native: ModuleType) -> None:
    """All 65,536 halves become the floats numpy gives, and come back as they were; NaN becomes quiet."""
    wide = np.empty(_HALVES.size, np.float32)
    native.f16_to_f32(_HALVES, wide)
    back = np.empty_like(_HALVES)
    native.f32_to_f16(wide, back)

    expected = _HALVES.view(np.float16).astype(np.float32)
    number = ~np.isnan(expected)
    assert np.array_equal(expected.view(np.uint32)[number], wide.view(np.uint32)[number])
    assert np.isnan(wide[~number]).all()
    assert np.array_equal(np.where(number, _HALVES, (_HALVES & 0x8000) | 0x7E00), back)


def test_rounding_to_halves_is_that_of_numpy(native: ModuleType) -> None:
    """Floats around every half and between them round to nearest even, subnormals and overflow included."""
    base = _HALVES.view(np.float16).astype(np.float32)
    base = base[np.isfinite(base)]
    bits = base.view(np.uint32)
    steps = [0, 1, -1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001]
    values = np.concatenate([(bits + np.uint32(step & 0xFFFFFFFF)).view(np.float32) for step in steps])
    values = np.concatenate([values, values * np.float32(2**-13), np.float32([65519, 65520, 65521, 1e38, -1e38])])
    values = values[np.isfinite(values)]
    out = np.empty(values.size, np.uint16)

    native.f32_to_f16(values, out)

    with np.errstate(over="ignore"):
        assert np.array_equal(values.astype(np.float16).view(np.uint16), out)


def test_bfloats_widen_and_narrow_exactly(native: ModuleType) -> None:
    """Widening appends zero bits; narrowing rounds to nearest even and keeps NaN."""
    wide = np.empty(_HALVES.size, np.float32)
    native.bf16_to_f32(_HALVES, wide)
    assert np.array_equal(_HALVES.astype(np.uint32) << 16, wide.view(np.uint32))

    values = (wide.view(np.uint32) + np.uint32(0x8000)).view(np.float32)
    out = np.empty(values.size, np.uint16)
    native.f32_to_bf16(values, out)

    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    assert np.array_equal(np.where(np.isnan(values), (bits >> 16) | 64, rounded).astype(np.uint16), out)


def test_conversions_refuse_what_does_not_fit(native: ModuleType) -> None:
    """Different lengths, wrong formats and shared memory are refused."""
    halves, floats = np.zeros(8, np.uint16), np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="as many items"):
        native.f16_to_f32(halves[:7], floats)
    with pytest.raises(TypeError, match="'f' expected"):
        native.f16_to_f32(halves, floats.astype(np.float64))
    with pytest.raises(ValueError, match="separate memory"):
        native.f32_to_f16(floats[:4], floats.view(np.uint16)[:4])


POINTS = np.arange(0, 6561, 25, dtype=np.uint16)[:256]
IQ2_XXS = 16


@pytest.mark.parametrize(
    ("numbers", "size", "base"),
    [
        (POINTS, 8, 2),
        (POINTS, 8, 5),
        (POINTS, 3, 8),
        (POINTS, 0, 0),
        (POINTS, -8, 3),
        (POINTS, 4, 9),
        (np.append(POINTS, POINTS[:1]), 8, 3),
        (np.array([6561], np.uint16), 8, 3),
        (np.zeros(0, np.uint16), 8, 3),
        (np.arange(4097, dtype=np.uint16), 8, 3),
    ],
)
def test_grids_that_are_none_are_refused(native: ModuleType, numbers: np.ndarray, size: int, base: int) -> None:
    """Numbers beyond the combinations, doubled ones, too many or none, and other shapes make no grid."""
    with pytest.raises(ValueError, match="not the points of such a grid"):
        native.make_grid(numbers, size, base, 2)


@pytest.mark.parametrize("shells", [0, -1])
def test_grid_has_neighbours(native: ModuleType, shells: int) -> None:
    """Combinations without a point need at least one neighbour."""
    with pytest.raises(ValueError, match="not the points of such a grid"):
        native.make_grid(POINTS, 8, 3, shells)


def test_grid_has_to_be_that_of_the_type(native: ModuleType) -> None:
    """A type that needs a grid gets none of another shape, and nothing else in its place."""
    given = _arguments(type=IQ2_XXS, importance=np.ones(512, np.float32), out=np.zeros(2 * 2 * 66, np.uint8))
    with pytest.raises(ValueError, match="needs one"):
        native.pack(*given)
    with pytest.raises(ValueError, match="256 points of 8 levels expected, found 255 of 8"):
        native.pack(*given, native.make_grid(POINTS[:255], 8, 3, 2))
    with pytest.raises(ValueError, match="PyCapsule"):
        native.pack(*given, object())

    assert native.pack(*given, native.make_grid(POINTS, 8, 3, 2)) is None
