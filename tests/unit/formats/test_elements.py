"""Element types: exact widening, rounding to nearest even, and every code of the narrow formats."""

from __future__ import annotations

from itertools import pairwise

import gguf
import numpy as np
import pytest

from modelbuild.errors import InputError, UnsupportedError
from modelbuild.formats.elements import decode, encode

ALL_WORDS = np.arange(1 << 16, dtype=np.uint16)
#: float32 at and around every place where the narrow types change: all exponents, ties, and their neighbours.
_TIES = (np.arange(1 << 16, dtype=np.uint32) << 16 | 0x8000).astype(np.uint32)
_HALVES = ALL_WORDS.view(np.float16)[ALL_WORDS & 0x7FFF < 0x7C00].astype(np.float32)
_MIDDLES = ((_HALVES[:-1].astype(np.float64) + _HALVES[1:]) / 2).astype(np.float32)
RANDOM = np.random.default_rng(7).integers(0, 1 << 32, 1 << 17, dtype=np.uint32)


def neighbours(values: np.ndarray) -> np.ndarray:
    """The values and the floats next to each."""
    bits = values.astype(np.float32).view(np.uint32)
    return np.concatenate([bits, bits + np.uint32(1), bits - np.uint32(1)]).view(np.float32)


PROBES = np.concatenate([neighbours(_TIES.view(np.float32)), neighbours(_HALVES), neighbours(_MIDDLES)])
PROBES = np.concatenate([PROBES, RANDOM.view(np.float32)])


def same_bits(expected: np.ndarray, actual: np.ndarray) -> bool:
    """Equal bit for bit, so that -0 is not 0 and NaN is NaN."""
    return expected.dtype == actual.dtype and expected.tobytes() == actual.tobytes()


def test_bf16_widens_every_code() -> None:
    """A BF16 is the upper half of the float32, NaN included."""
    expected = (ALL_WORDS.astype(np.uint32) << 16).view(np.float32)

    assert same_bits(expected, decode(ALL_WORDS, "BF16"))


def test_f16_widens_every_finite_code() -> None:
    """All finite halves, subnormal ones included, equal numpy's conversion bit for bit."""
    halves = ALL_WORDS.view(np.float16)[np.isfinite(ALL_WORDS.view(np.float16))]

    assert same_bits(halves.astype(np.float32), decode(halves, "F16"))


def test_f16_widens_infinities_and_nan() -> None:
    """Blocks that hold infinities or NaN are converted too."""
    values = decode(ALL_WORDS.view(np.float16), "F16")

    assert same_bits(ALL_WORDS.view(np.float16).astype(np.float32), values)


def test_f16_rounds_to_nearest_even() -> None:
    """Every finite result equals numpy's conversion bit for bit, at ties and on both sides of them."""
    values = PROBES[np.abs(PROBES) < 65520]

    assert same_bits(values.astype(np.float16), encode(values, "F16"))


def test_f16_keeps_infinities_and_quiet_nan() -> None:
    """Infinities stay, NaN becomes the quiet NaN of its sign, and finite neighbours are not disturbed."""
    bits = np.array([0x7F800000, 0xFF800000, 0x7F800001, 0xFFC12345, 0x3F800000, 0xB3000001], np.uint32)

    narrow = encode(bits.view(np.float32), "F16").view(np.uint16)

    assert [0x7C00, 0xFC00, 0x7E00, 0xFE00, 0x3C00, 0x8001] == narrow.tolist()


@pytest.mark.parametrize("index", [0, 5, (1 << 18) + 3])
def test_f16_overflow_names_value_and_index(index: int) -> None:
    """A finite weight that would become infinite is an error, wherever it stands."""
    values = np.zeros((2, (1 << 17) + 8), np.float32)
    values.reshape(-1)[index] = -65520.0

    with pytest.raises(InputError, match=rf"-65520 at index {index} ") as caught:
        encode(values, "F16")

    assert caught.value.code == "DATA"


def test_bf16_rounds_like_the_gguf_package() -> None:
    """Every probe, NaN and overflow to infinity included, equals the independent implementation."""
    values = PROBES[: PROBES.size // 32 * 32].reshape(-1, 32)

    expected = gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16)

    assert expected.tobytes() == encode(values, "BF16").tobytes()


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_narrowing_undoes_widening(name: str) -> None:
    """Every code that is no NaN survives widening and narrowing."""
    words = ALL_WORDS[~np.isnan(decode(_typed(name), name))]

    again = encode(decode(_typed(name, words), name), name)  # type: ignore[arg-type]

    assert words.tobytes() == again.tobytes()


def _typed(name: str, words: np.ndarray = ALL_WORDS) -> np.ndarray:
    return words.view(np.float16) if name == "F16" else words


def test_f32_is_not_copied() -> None:
    """float32 goes through both ways as the same memory."""
    values = np.arange(8, dtype=np.float32).reshape(2, 4)

    assert encode(values, "F32") is values
    assert np.shares_memory(values, decode(values, "F32"))
    assert np.shares_memory(values, decode(values.view(np.uint8), "F32"))


TYPED = {
    "F64": np.array([[0.1, -1e300]], "<f8"), "F32": np.array([[0.5, -0.0]], "<f4"),
    "F16": np.array([[0.5, 6e-8]], "<f2"),
    "I64": np.array([[-(2**63), 7]], "<i8"), "I32": np.array([[-(2**31), 7]], "<i4"), "I16": np.array([[-5, 7]], "<i2"),
    "I8": np.array([[-5, 7]], "i1"), "U64": np.array([[2**64 - 1, 7]], "<u8"), "U32": np.array([[2**32 - 1, 7]], "<u4"),
    "U16": np.array([[65535, 7]], "<u2"), "U8": np.array([[255, 7]], "u1"), "BOOL": np.array([[True, False]]),
    "BF16": np.array([[0x3F80, 0x8000]], "<u2"), "F8_E4M3": np.array([[0x38, 0xB8]], "u1"),
}  # fmt: skip


@pytest.mark.parametrize("dtype", TYPED)
def test_raw_bytes_and_typed_arrays_mean_the_same(dtype: str) -> None:
    """Rows of raw bytes and rows of the element type decode to the same float32 of the same shape."""
    typed = TYPED[dtype]

    from_typed, from_raw = decode(typed, dtype), decode(typed.view(np.uint8), dtype)

    assert (np.float32, (1, 2)) == (from_typed.dtype, from_typed.shape)
    assert same_bits(from_typed, from_raw)


@pytest.mark.parametrize("dtype", sorted(set(TYPED) - {"BF16", "F8_E4M3", "F64"}))
def test_numbers_keep_their_value(dtype: str) -> None:
    """Plain numbers become the nearest float32."""
    assert TYPED[dtype].astype(np.float32).tolist() == decode(TYPED[dtype], dtype).tolist()


def test_f64_beyond_range_becomes_infinite() -> None:
    """A double that float32 cannot hold becomes infinite without a warning; packing reports it."""
    assert [np.float32(0.1), -np.inf] == decode(TYPED["F64"], "F64")[0].tolist()


CODES = np.arange(256, dtype=np.uint8)


def test_e4m3_table() -> None:
    """Known codes of F8_E4M3: zero, smallest subnormal, smallest normal, one, largest, NaN; negative ones mirror."""
    values = decode(CODES, "F8_E4M3")

    known = [(0x00, 0.0), (0x01, 2**-9), (0x07, 7 * 2**-9), (0x08, 2**-6), (0x38, 1.0), (0x3C, 1.5), (0x7E, 448.0)]
    assert [value for _, value in known] == [values[code] for code, _ in known]
    assert [0x7F, 0xFF] == np.flatnonzero(np.isnan(values)).tolist()
    assert same_bits(-values[:0x7F], values[0x80:0xFF])


def test_e4m3_grows_with_its_code() -> None:
    """Positive codes are in the order of their values, as in every IEEE-like format."""
    for dtype, last in [("F8_E4M3", 0x7E), ("F8_E5M2", 0x7C), ("F8_E8M0", 0xFE), ("F8_E4M3FNUZ", 0x7F)]:
        values = decode(CODES[: last + 1], dtype)
        assert all(low < high for low, high in pairwise(values.tolist())), dtype


def test_e5m2_is_the_upper_byte_of_f16() -> None:
    """F8_E5M2 widens like a half whose lower byte is zero."""
    expected = (CODES.astype(np.uint16) << 8).view(np.float16).astype(np.float32)

    assert np.array_equal(expected, decode(CODES, "F8_E5M2"), equal_nan=True)


def test_e8m0_is_a_power_of_two() -> None:
    """F8_E8M0 holds exponents, from 2^-127 (a subnormal float32) to 2^127; the last code is NaN."""
    values = decode(CODES, "F8_E8M0")

    assert [2.0**-127, 1.0, 2.0**127] == [float(values[code]) for code in (0, 127, 254)]
    assert np.isnan(values[255])


def test_fnuz_formats_have_no_negative_zero() -> None:
    """The FNUZ variants use that code for NaN and shift the bias by one."""
    e4m3, e5m2 = decode(CODES, "F8_E4M3FNUZ"), decode(CODES, "F8_E5M2FNUZ")

    assert [0x80] == np.flatnonzero(np.isnan(e4m3)).tolist() == np.flatnonzero(np.isnan(e5m2)).tolist()
    assert (1.0, 240.0, 1.0, 57344.0) == (e4m3[0x40], e4m3[0x7F], e5m2[0x40], e5m2[0x7F])


def test_rows_of_a_matrix_can_be_cut_out() -> None:
    """Rows of a larger array, contiguous only in their last axis, decode without being copied first."""
    table = np.arange(64, dtype=np.float32).reshape(8, 8)[::2]

    assert same_bits(np.ascontiguousarray(table), np.ascontiguousarray(decode(table.view(np.uint8), "F32")))
    assert same_bits(np.ascontiguousarray(table.astype(np.float16)), encode(table, "F16"))
    assert np.array_equal(table, decode(encode(table, "BF16"), "BF16"))


def test_partial_element_is_refused() -> None:
    """Rows that end inside an element are an error, not a silent cut."""
    with pytest.raises(InputError) as caught:
        decode(np.zeros((2, 3), np.uint8), "F16")

    assert caught.value.code == "SHAPE"


def test_wrong_typed_array_is_refused() -> None:
    """A typed array must have the type that the dtype says."""
    with pytest.raises(InputError, match="float64"):
        decode(np.zeros((2, 4)), "F16")


@pytest.mark.parametrize("dtype", ["Q4_K", "C64", "F4", "F99"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    """What is no plain number is named."""
    with pytest.raises(UnsupportedError, match=dtype):
        decode(np.zeros((1, 8), np.uint8), dtype)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_no_weights_at_all(name: str) -> None:
    """Tensors without elements go through both ways."""
    empty = np.zeros((3, 0), np.float32)

    narrow = encode(empty, name)  # type: ignore[arg-type]

    assert (3, 0) == narrow.shape == decode(narrow, name).shape
