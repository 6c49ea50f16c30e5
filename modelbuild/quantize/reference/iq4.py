"""Packers of IQ4_NL and IQ4_XS: 4-bit indices into a table of 16 uneven values, the scale searched.

Formulas: quantize_row_iq4_nl_impl in ggml-quants.c of llama.cpp (October 2026), which serves both with and without
importance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelbuild.quantize.reference.arrays import (
    EMPTY,
    Bool,
    Float32,
    Uint8,
    as_lanes,
    first_largest,
    from_lanes,
    half_bytes,
    inverse,
    join_bits,
    low_bits,
    ordered_sum,
    pack_nibbles,
    round_levels,
)

GROUP = 32
VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_ZERO = np.float32(0)
#: Twice the middle between neighbours: integers, so that the nearest value depends on floor(2 * x) alone.
_TWICE_MIDDLES = (VALUES[:-1] + VALUES[1:]).astype(np.int64)
_STEPS = range(-7, 8)
#: Index of the nearest value for floor(2 * x) + 256; ties go up. The outermost entries serve all that lies beyond.
_NEAREST = np.searchsorted(_TWICE_MIDDLES, np.arange(-256, 256), side="right").astype(np.uint8)
_NEAREST_VALUE = VALUES[_NEAREST]


def pack_iq4_nl(blocks: Float32, weights: Float32 | None) -> Uint8:
    """Blocks of 32: a float16 scale, 16 bytes of two indices."""
    x = as_lanes(blocks, GROUP)
    scale = _search_scale(x, x * x if weights is None else as_lanes(weights, GROUP))
    codes = nearest_codes(from_lanes(inverse(scale) * x, GROUP))
    return np.hstack([half_bytes(scale), pack_nibbles(codes)])


def pack_iq4_xs(blocks: Float32, weights: Float32 | None) -> Uint8:
    """Blocks of 256: float16 d, high bits of eight 6-bit scales, low bits of them, 128 bytes of two indices."""
    x = as_lanes(blocks, GROUP)
    scale = _search_scale(x, x * x if weights is None else as_lanes(weights, GROUP)).reshape(-1, 8)
    d = -first_largest(scale.T) / np.float32(32)
    levels = round_levels(inverse(d)[:, np.newaxis] * scale, -32, 31)
    step = d[:, np.newaxis] * levels
    codes = nearest_codes(inverse(step)[..., np.newaxis] * blocks.reshape(len(blocks), 8, GROUP))
    stored = (levels + np.float32(32)).astype(np.uint8)
    nibbles = pack_nibbles(codes).reshape(len(blocks), -1)
    return np.hstack([half_bytes(d), _high_scales(stored), _low_scales(stored), nibbles])


def nearest_codes(x: Float32) -> Uint8:
    """The index of the table value nearest to each x."""
    return _NEAREST[_table_index(x)]


def _table_index(x: Float32) -> npt.NDArray[np.int16]:
    # fmin and fmax take the number when the other is NaN, and NaN gets the last index in the original.
    twice = np.fmax(np.fmin(np.floor(x + x), np.float32(255)), np.float32(-256))
    index: npt.NDArray[np.int16] = (twice + np.float32(256)).astype(np.int16)
    return index


def _search_scale(x: Float32, weights: Float32) -> Float32:
    """The scale of each lane with the least weighted error of those tried."""
    extreme = first_largest(x)
    sum_qx, sum_q2 = _sums(x, weights, np.float32(1) / (-extreme / VALUES[0]))
    scale = np.where(sum_q2 > 0, sum_qx / sum_q2, _ZERO)
    best = scale * sum_qx
    for step in _STEPS:
        sum_qx, sum_q2 = _sums(x, weights, (np.float32(step) + VALUES[0]) / extreme)
        better: Bool = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        scale = np.where(better, sum_qx / sum_q2, scale)
        best = np.where(better, scale * sum_qx, best)
    return np.where(np.abs(extreme) < EMPTY, _ZERO, scale)


def _sums(x: Float32, weights: Float32, inverted: Float32) -> tuple[Float32, Float32]:
    values = _NEAREST_VALUE[_table_index(inverted * x)]
    product = weights * values
    sum_qx = ordered_sum(product * x)
    product *= values
    return sum_qx, ordered_sum(product)


def _high_scales(scales: Uint8) -> Uint8:
    """The upper two bits of eight scales as a little-endian 16-bit number, scale j at bits 2*j."""
    quads = (scales >> np.uint8(4)).reshape(len(scales), 2, 4)
    return join_bits(2, *(quads[..., index] for index in range(4)))


def _low_scales(scales: Uint8) -> Uint8:
    """The lower four bits of eight scales, two to a byte, the even one low."""
    halves = low_bits(scales, 4)
    return join_bits(4, halves[:, 0::2], halves[:, 1::2])
