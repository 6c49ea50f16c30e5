"""Packers of IQ2_XXS, IQ2_XS and IQ2_S: 8 magnitudes together become one point of a grid.

Layouts: ggml-common.h of llama.cpp (October 2026); the searches are in `grid_search`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelbuild.quantize.reference.arrays import (
    EMPTY,
    Float32,
    Int32,
    Uint8,
    as_lanes,
    first_max,
    half_bytes,
    join_bits,
    round_levels,
)
from modelbuild.quantize.reference.grid_search import (
    Found,
    Trials,
    search_grid,
    search_grid_from_fit,
    split_signs,
)
from modelbuild.quantize.reference.grids import load_grid
from modelbuild.quantize.reference.rows import block_mean

_ONE = np.float32(1)
_TRIALS = Trials(3, 9, 0.1)
_TRIALS_XXS = Trials(3, 6, 0.1)
_EMPTY_S = np.float32(1e-8)


def pack_iq2_xxs(blocks: Float32, weights: Float32 | None) -> Uint8:
    """float16 d, then per 32: four points of a byte each, four 7-bit sign codes and a 4-bit scale in 32 bits."""
    lanes = split_signs(as_lanes(blocks, 32), as_lanes(_needed(weights), 32), even=True)
    found = search_grid_from_fit(load_grid("IQ2_XXS"), lanes, _TRIALS_XXS, first_max(lanes.v) < EMPTY)
    d, scales = quantize_scales(found, 8, np.float32(1))
    points, signs = per_block(found, d, 8, keep_when_zero=False)
    words = sign_words(signs.reshape(-1, 8, 4), scales)
    body = np.concatenate([points.astype(np.uint8).reshape(-1, 8, 4), words], axis=2).reshape(len(blocks), -1)
    return np.hstack([half_bytes(d), body])


def pack_iq2_xs(blocks: Float32, weights: Float32 | None) -> Uint8:
    """float16 d, 32 words of a 9-bit point and a 7-bit sign code, 8 bytes of two 4-bit scales."""
    lanes = split_signs(as_lanes(blocks, 16), as_lanes(_needed(weights), 16), even=True)
    found = search_grid(load_grid("IQ2_XS"), lanes, _TRIALS, first_max(lanes.v) < EMPTY)
    d, scales = quantize_scales(found, 16, np.float32(1))
    points, signs = per_block(found, d, 16, keep_when_zero=False)
    words = points.astype("<u2") | ((signs & np.uint8(127)).astype("<u2") << np.uint16(9))
    return np.hstack(
        [half_bytes(d), words.astype("<u2").view(np.uint8), join_bits(4, scales[:, 0::2], scales[:, 1::2])]
    )


def pack_iq2_s(blocks: Float32, weights: Float32 | None) -> Uint8:
    """float16 d, low bytes of 32 points, 32 sign bytes, high bits of the points, 8 bytes of two 4-bit scales."""
    if weights is None:
        weights = np.float32(0.25) * block_mean(blocks, 2) + blocks * blocks
    lanes = split_signs(as_lanes(blocks, 16), as_lanes(weights, 16), even=False)
    found = search_grid(load_grid("IQ2_S"), lanes, _TRIALS, first_max(lanes.v) < _EMPTY_S)
    d, scales = quantize_scales(found, 16, np.float32(0.9875))
    points, signs = per_block(found, d, 16, keep_when_zero=True)
    high = (points >> 8).astype(np.uint8).reshape(-1, 8, 4)
    parts = [half_bytes(d), points.astype(np.uint8), signs, join_bits(2, *(high[..., index] for index in range(4)))]
    return np.hstack([*parts, join_bits(4, scales[:, 0::2], scales[:, 1::2])])


def quantize_scales(found: Found, groups: int, fudge: np.float32) -> tuple[Float32, Uint8]:
    """The step of each block, times a factor found by experiment upstream, and the 4-bit scales (blocks, groups)."""
    scale = found.scale.reshape(-1, groups)
    greatest = scale.max(axis=1)
    d = greatest / np.float32(31)
    levels = round_levels(np.float32(0.5) * ((_ONE / d)[:, np.newaxis] * scale - _ONE), 0, 15)
    stored = np.where((greatest > 0)[:, np.newaxis], levels, np.float32(0)).astype(np.uint8)
    return np.where(greatest > 0, d * fudge, np.float32(0)), stored


def per_block(found: Found, d: Float32, groups: int, *, keep_when_zero: bool) -> tuple[Int32, Uint8]:
    """Points (blocks, ...) and sign bytes (blocks, 32) in element order; zero for empty sub-blocks.

    keep_when_zero: a block whose scale is zero keeps those it has.
    """
    used = found.used
    if not keep_when_zero:
        used = used & np.repeat(found.scale.reshape(-1, groups).max(axis=1) > 0, groups)
    points = np.where(used, found.points, 0).T.reshape(len(d), -1)
    signs = np.where(used, found.signs, np.uint8(0)).T.reshape(len(d), -1)
    return points.astype(np.int32), signs


def sign_words(signs: Uint8, scales: Uint8) -> Uint8:
    """Four 7-bit sign codes (n, 8, 4) and a 4-bit scale (n, 8) as little-endian 32-bit words, (n, 8, 4) bytes."""
    codes = (signs & np.uint8(127)).astype(np.uint32)
    words: npt.NDArray[np.uint32] = scales.astype(np.uint32) << np.uint32(28)
    for index in range(4):
        words |= codes[..., index] << np.uint32(7 * index)
    return words.astype("<u4").view(np.uint8).reshape(signs.shape)


def _needed(weights: Float32 | None) -> Float32:
    if weights is None:
        raise AssertionError("callers refuse this type without importance")
    return weights
