"""Packers without a search: floats, Q8_0, Q4_0 to Q5_1, Q1_0, Q2_0; with importance Q4_0 to Q5_1 do search.

Layouts and formulas: ggml-common.h and ggml-quants.c of llama.cpp (October 2026).
"""

from __future__ import annotations

import numpy as np

from modelbuild.quantize.reference.arrays import (
    Float32,
    Uint8,
    as_lanes,
    first_largest,
    first_max,
    first_min,
    from_lanes,
    half_bytes,
    inverse,
    join_bits,
    low_bits,
    low_byte,
    ordered_sum,
    pack_bit_rows,
    pack_nibbles,
    round_half_away,
)
from modelbuild.quantize.reference.search import AffineSearch, search_affine, search_symmetric


def pack_f32(rows: Float32, _weights: Float32 | None) -> Uint8:
    """Rows of float32 as they are, little endian."""
    return np.ascontiguousarray(rows, dtype="<f4").view(np.uint8)


def pack_f16(rows: Float32, _weights: Float32 | None) -> Uint8:
    """float16, rounded half to even; what is too large becomes infinite."""
    with np.errstate(all="ignore"):
        return half_bytes(np.ascontiguousarray(rows, dtype=np.float32))


def pack_bf16(rows: Float32, _weights: Float32 | None) -> Uint8:
    """bfloat16: the upper half of float32, rounded half to even; NaN stays NaN."""
    bits = np.ascontiguousarray(rows, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(64)
    halves = np.where(np.isnan(rows), quiet, rounded).astype("<u2")
    return np.ascontiguousarray(halves).view(np.uint8)


def pack_q8_0(blocks: Float32, _weights: Float32 | None) -> Uint8:
    """Blocks of 32: a float16 scale, 32 int8; rounding is half away from zero."""
    scale = np.abs(blocks).max(axis=1) / np.float32(127)
    codes = low_byte(round_half_away(blocks * inverse(scale)[:, np.newaxis]))
    return np.hstack([half_bytes(scale), codes.view(np.uint8)])


def pack_q4_0(blocks: Float32, weights: Float32 | None) -> Uint8:
    """Blocks of 32: a float16 scale, 16 bytes of two codes; value = scale * (code - 8)."""
    if weights is None:
        scale, codes = _scale_by_extreme(blocks, 8)
    else:
        scale, codes = _search_symmetric(blocks, weights, 8)
    return np.hstack([half_bytes(scale), pack_nibbles(codes)])


def pack_q5_0(blocks: Float32, weights: Float32 | None) -> Uint8:
    """Blocks of 32: float16 scale, the fifth bits of all codes, 16 bytes of two codes; value = scale * (code - 16)."""
    if weights is None:
        scale, codes = _scale_by_extreme(blocks, 16)
    else:
        scale, codes = _search_symmetric(blocks, weights, 16)
    return np.hstack([half_bytes(scale), fifth_bits(codes), pack_nibbles(low_bits(codes, 4))])


def pack_q4_1(blocks: Float32, weights: Float32 | None) -> Uint8:
    """Blocks of 32: float16 scale and minimum, 16 bytes of two codes; value = scale * code + minimum."""
    if weights is None:
        scale, low, raw = _scale_by_range(blocks, 15)
        codes = np.minimum(raw, np.int8(15)).view(np.uint8)
    else:
        scale, low, codes = _search_affine(blocks, weights, 15)
    return np.hstack([half_bytes(scale), half_bytes(low), pack_nibbles(codes)])


def pack_q5_1(blocks: Float32, weights: Float32 | None) -> Uint8:
    """Blocks of 32: float16 scale and minimum, fifth bits, 16 bytes of two codes; value = scale * code + minimum."""
    if weights is None:
        scale, low, raw = _scale_by_range(blocks, 31)
        codes = raw.view(np.uint8)
    else:
        scale, low, codes = _search_affine(blocks, weights, 31)
    return np.hstack([half_bytes(scale), half_bytes(low), fifth_bits(codes), pack_nibbles(low_bits(codes, 4))])


def pack_q1_0(blocks: Float32, _weights: Float32 | None) -> Uint8:
    """Blocks of 128: the mean magnitude as float16, then a bit per element, set when it is not negative."""
    lanes = as_lanes(blocks, blocks.shape[1])
    mean = ordered_sum(np.abs(lanes)) / np.float32(blocks.shape[1])
    return np.hstack([half_bytes(mean), pack_bit_rows(blocks >= 0)])


def pack_q2_0(blocks: Float32, _weights: Float32 | None) -> Uint8:
    """Blocks of 64: the largest magnitude as float16, then 2 bits per element; value = scale * (code - 1)."""
    scale = np.abs(blocks).max(axis=1)
    inverted = np.where(scale > 0, np.float32(1) / scale, np.float32(0))
    rounded = round_half_away(blocks * inverted[:, np.newaxis])
    # 1 / scale is infinite for the smallest scales; C then converts what int32 cannot hold to its least value.
    fits = np.abs(rounded) < np.float32(2.0**31)
    codes = np.clip(np.where(fits, rounded, np.float32(-2)) + np.float32(1), 0, 3).astype(np.uint8)
    quads = codes.reshape(len(codes), -1, 4)
    return np.hstack([half_bytes(scale), join_bits(2, *(quads[..., index] for index in range(4)))])


def fifth_bits(codes: Uint8) -> Uint8:
    """Bit 4 of each of 32 codes, four bytes, element n in bit n."""
    return pack_bit_rows((codes & np.uint8(16)) != 0)


def _scale_by_extreme(blocks: Float32, half: int) -> tuple[Float32, Uint8]:
    """The element of largest magnitude becomes code 0, that is -half."""
    scale = first_largest(blocks.T) / np.float32(-half)
    raw = low_byte(blocks * inverse(scale)[:, np.newaxis] + np.float32(half + 0.5))
    return scale, np.minimum(raw, np.int8(2 * half - 1)).view(np.uint8)


def _scale_by_range(
    blocks: Float32, levels: int
) -> tuple[Float32, Float32, np.ndarray[tuple[int, ...], np.dtype[np.int8]]]:
    low, high = first_min(blocks.T), first_max(blocks.T)
    scale = (high - low) / np.float32(levels)
    raw = low_byte((blocks - low[:, np.newaxis]) * inverse(scale)[:, np.newaxis] + np.float32(0.5))
    return scale, low, raw


def _search_symmetric(blocks: Float32, weights: Float32, half: int) -> tuple[Float32, Uint8]:
    size = blocks.shape[1]
    scale, levels = search_symmetric(as_lanes(blocks, size), half, as_lanes(weights, size))
    return scale, from_lanes(levels, size).astype(np.uint8)


def _search_affine(blocks: Float32, weights: Float32, levels: int) -> tuple[Float32, Float32, Uint8]:
    size = blocks.shape[1]
    how = AffineSearch(levels, -0.9, 0.05, 36)
    scale, offset, codes = search_affine(as_lanes(blocks, size), as_lanes(weights, size), how, needs_range=True)
    return scale, -offset, from_lanes(codes, size).astype(np.uint8)
