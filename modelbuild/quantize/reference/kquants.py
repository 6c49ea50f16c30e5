"""Packers of the K types: blocks of 256 in groups of 16 or 32, scales of groups quantized themselves.

Three steps: a search per group, the quantization of its results over the block, and a second pass that makes the codes
from the scales as they are stored. Formulas: ggml-quants.c of llama.cpp (October 2026); layouts are in `kbits`.
"""

from __future__ import annotations

import numpy as np

from modelbuild.quantize.reference.arrays import (
    EMPTY,
    Float32,
    Uint8,
    as_lanes,
    as_stored,
    first_largest,
    from_lanes,
    half_bytes,
    join_bits,
    low_bits,
    ordered_sum,
    round_int,
    round_levels,
)
from modelbuild.quantize.reference.kbits import (
    pack_high_bits,
    pack_pairs_of_32,
    pack_q6,
    pack_quads,
    pack_scales_3,
    pack_scales_6,
    unpack_scales_6,
)
from modelbuild.quantize.reference.search import (
    AffineSearch,
    search_affine,
    search_positive,
    search_swept,
    search_symmetric,
)

BLOCK = 256
_ZERO = np.float32(0)
_TOP_6 = np.uint8(63)
#: The affine search with importance is the same for all types but for the number of levels.
_FIRST_STEP, _STEP_SIZE, _STEPS = -0.9, 0.05, 36


def pack_q2_k(blocks: Float32, weights: Float32 | None) -> Uint8:
    """16 bytes of scale and minimum (4 bits each), 64 bytes of 2-bit codes, float16 d and dmin; groups of 16."""
    x = as_lanes(blocks, 16)
    if weights is None:
        how = AffineSearch(3, -0.5, 0.1, 15, absolute=True)
        scale, offset, levels = search_affine(x, np.abs(x), how, needs_range=False)
        d, scales = _quantize_range(scale.reshape(-1, 16), 15)
        dmin, offsets = _quantize_range(offset.reshape(-1, 16), 15)
    else:
        d, scales, dmin, offsets, levels = _search_weighted(x, as_lanes(weights, 16), 3, 15)
    joined = join_bits(4, scales, offsets)
    codes = _codes_affine(blocks, levels, d, dmin, (low_bits(joined, 4), joined >> np.uint8(4)), 3)
    return np.hstack([joined, pack_quads(codes), half_bytes(d), half_bytes(dmin)])


def pack_q3_k(blocks: Float32, weights: Float32 | None) -> Uint8:
    """32 bytes of high bits, 64 bytes of low codes, 12 bytes of 6-bit scales, float16 d; groups of 16."""
    x = as_lanes(blocks, 16)
    if weights is None:
        scale, levels = search_swept(x, 4)
        d, scales = _quantize_signed(scale.reshape(-1, 16))
    else:
        w = as_lanes(weights, 16)
        scale, levels = search_symmetric(x, 4, w)
        sums = ordered_sum(w).reshape(-1, 16)
        d, found = search_symmetric(as_lanes(scale, 16), 32, as_lanes(sums, 16))
        scales = from_lanes(found, 16).astype(np.uint8)
    signed = scales.astype(np.float32) - np.float32(32)
    codes = _codes_symmetric(blocks, levels, as_stored(d)[:, np.newaxis] * signed, 4)
    return np.hstack([pack_high_bits(codes, 2), pack_quads(low_bits(codes, 2)), pack_scales_3(scales), half_bytes(d)])


def pack_q4_k(blocks: Float32, weights: Float32 | None) -> Uint8:
    """float16 d and dmin, 12 bytes of 6-bit scales and minima, 128 bytes of 4-bit codes; groups of 32."""
    head, codes = _pack_affine_32(blocks, weights, AffineSearch(15, -1.0, 0.1, 20), cut=False)
    return np.hstack([head, pack_pairs_of_32(codes)])


def pack_q5_k(blocks: Float32, weights: Float32 | None) -> Uint8:
    """As Q4_K, with 32 bytes of fifth bits before the codes."""
    head, codes = _pack_affine_32(blocks, weights, AffineSearch(31, -0.5, 0.1, 15), cut=True)
    return np.hstack([head, pack_high_bits(codes, 4), pack_pairs_of_32(low_bits(codes, 4))])


def pack_q6_k(blocks: Float32, weights: Float32 | None) -> Uint8:
    """128 bytes of low and 64 bytes of high code bits, 16 int8 scales, float16 d; groups of 16."""
    scale, levels = search_symmetric(as_lanes(blocks, 16), 32, None if weights is None else as_lanes(weights, 16))
    scale = scale.reshape(-1, 16)
    extreme = first_largest(scale.T)
    inverse = np.float32(-128) / extreme
    d = np.float32(1) / inverse
    scales = np.minimum(round_int(inverse[:, np.newaxis] * scale), 127).astype(np.int8)
    codes = _codes_symmetric(blocks, levels, as_stored(d)[:, np.newaxis] * scales.astype(np.float32), 32)
    packed = np.hstack([pack_q6(codes), scales.view(np.uint8), half_bytes(d)])
    return np.where(np.abs(extreme)[:, np.newaxis] < EMPTY, np.uint8(0), packed)


def _pack_affine_32(blocks: Float32, weights: Float32 | None, how: AffineSearch, *, cut: bool) -> tuple[Uint8, Uint8]:
    """d, dmin and the scales as 16 bytes, and the codes, (blocks, 256). cut: keep found scales within 6 bits."""
    x = as_lanes(blocks, 32)
    if weights is None:
        mean = np.sqrt(ordered_sum(x * x) / np.float32(32))
        scale, offset, levels = search_affine(x, mean + np.abs(x), how, needs_range=False)
        d, scales = _quantize_range(scale.reshape(-1, 8), 63)
        dmin, offsets = _quantize_range(offset.reshape(-1, 8), 63)
    else:
        d, scales, dmin, offsets, levels = _search_weighted(x, as_lanes(weights, 32), how.levels, 63)
    if cut:
        scales, offsets = np.minimum(scales, _TOP_6), np.minimum(offsets, _TOP_6)
    stored = pack_scales_6(scales, offsets)
    # Cancellation can make a scale negative, whose byte does not fit: what counts is how it reads when stored.
    codes = _codes_affine(blocks, levels, d, dmin, unpack_scales_6(stored), how.levels)
    return np.hstack([half_bytes(d), half_bytes(dmin), stored]), codes


def _search_weighted(
    x: Float32, weights: Float32, levels: int, top: int
) -> tuple[Float32, Uint8, Float32, Uint8, Float32]:
    """The affine search with importance, its scales and offsets searched over the block as well."""
    groups = BLOCK // len(x)
    how = AffineSearch(levels, _FIRST_STEP, _STEP_SIZE, _STEPS)
    scale, offset, codes = search_affine(x, weights, how, needs_range=True)
    sums = as_lanes(ordered_sum(weights), groups)
    d, scales = search_positive(as_lanes(scale, groups), top, sums)
    dmin, offsets = search_positive(as_lanes(offset, groups), top, sums)
    return d, from_lanes(scales, groups).astype(np.uint8), dmin, from_lanes(offsets, groups).astype(np.uint8), codes


def _quantize_range(values: Float32, top: int) -> tuple[Float32, Uint8]:
    """The step and the multiples 0..top for values of shape (blocks, groups); a block without positive values has 0."""
    greatest = np.maximum(values.max(axis=1), _ZERO)
    some = greatest > 0
    factor = np.where(some, np.float32(top) / greatest, _ZERO)[:, np.newaxis]
    # The original keeps the low byte of the rounded value, then cuts it; only degenerate blocks are negative here.
    codes = (round_int(factor * values) & 0xFF).astype(np.uint8)
    if top == _TOP_6:
        codes = np.minimum(codes, _TOP_6)
    return np.where(some, greatest / np.float32(top), _ZERO), codes


def _quantize_signed(values: Float32) -> tuple[Float32, Uint8]:
    """The step and the multiples -32..31, stored with 32 added, for values of shape (blocks, 16)."""
    extreme = first_largest(values.T)
    some = extreme != 0
    factor = (np.float32(-32) / extreme)[:, np.newaxis]
    multiples = np.clip(round_int(factor * values).astype(np.int8), -32, 31) + np.int8(32)
    codes = np.where(some[:, np.newaxis], multiples, np.int8(0)).astype(np.uint8)
    return np.where(some, np.float32(1) / factor[:, 0], _ZERO), codes


def _codes_affine(
    blocks: Float32, levels: Float32, d: Float32, dmin: Float32, stored: tuple[Uint8, Uint8], top: int
) -> Uint8:
    """Codes 0..top from the stored scales and offsets; groups whose scale is 0 keep the levels of the search."""
    scales, offsets = stored
    size = len(levels)
    grouped = blocks.reshape(len(blocks), -1, size)
    step = (as_stored(d)[:, np.newaxis] * scales.astype(np.float32))[..., np.newaxis]
    low = (as_stored(dmin)[:, np.newaxis] * offsets.astype(np.float32))[..., np.newaxis]
    codes = round_levels((grouped + low) / step, 0, top)
    codes = np.where(step == 0, from_lanes(levels, BLOCK).reshape(grouped.shape), codes)
    return codes.reshape(blocks.shape).astype(np.uint8)


def _codes_symmetric(blocks: Float32, levels: Float32, step: Float32, half: int) -> Uint8:
    """Codes 0..2*half-1 from the stored scales, step of shape (blocks, groups); zero scales as in `_codes_affine`."""
    grouped = blocks.reshape(len(blocks), -1, len(levels))
    step = step[..., np.newaxis]
    codes = round_levels(grouped / step, -half, half - 1) + np.float32(half)
    codes = np.where(step == 0, from_lanes(levels, BLOCK).reshape(grouped.shape), codes)
    return codes.reshape(blocks.shape).astype(np.uint8)
