"""Packers of IQ3_XXS and IQ3_S: 4 magnitudes together become one point of a grid.

Layouts: ggml-common.h of llama.cpp (October 2026); the searches are in `grid_search`.
"""

from __future__ import annotations

import numpy as np

from modelbuild.quantize.reference.arrays import (
    Float32,
    Uint8,
    as_lanes,
    first_max,
    half_bytes,
    join_bits,
    pack_bit_rows,
)
from modelbuild.quantize.reference.grid_search import Trials, search_grid, split_signs
from modelbuild.quantize.reference.grids import load_grid
from modelbuild.quantize.reference.iq2 import per_block, quantize_scales, sign_words

_TRIALS_XXS = Trials(8, 15, 0.2)
_TRIALS_S = Trials(8, 9, 0.2)
_EMPTY_XXS = np.float32(1e-8)


def pack_iq3_xxs(blocks: Float32, weights: Float32 | None) -> Uint8:
    """float16 d, 64 points of a byte each, then per 32 elements four 7-bit sign codes and a 4-bit scale."""
    w = as_lanes(blocks * blocks if weights is None else weights, 32)
    lanes = split_signs(as_lanes(blocks, 32), w, even=True)
    found = search_grid(load_grid("IQ3_XXS"), lanes, _TRIALS_XXS, first_max(lanes.v) < _EMPTY_XXS)
    d, scales = quantize_scales(found, 8, np.float32(1.0125))
    points, signs = per_block(found, d, 8, keep_when_zero=False)
    words = sign_words(signs.reshape(-1, 8, 4), scales).reshape(len(blocks), -1)
    return np.hstack([half_bytes(d), points.astype(np.uint8), words])


def pack_iq3_s(blocks: Float32, weights: Float32 | None) -> Uint8:
    """float16 d, low bytes of 64 points, their ninth bits, 32 sign bytes, 4 bytes of two 4-bit scales."""
    w = as_lanes(blocks * blocks if weights is None else weights, 32)
    lanes = split_signs(as_lanes(blocks, 32), w, even=False)
    found = search_grid(load_grid("IQ3_S"), lanes, _TRIALS_S, first_max(lanes.v) == 0, refit_all=True)
    d, scales = quantize_scales(found, 8, np.float32(1.033))
    points, signs = per_block(found, d, 8, keep_when_zero=True)
    used = found.used.reshape(-1, 8)
    low = _closed_up(points.astype(np.uint8), used)
    parts = [half_bytes(d), low, pack_bit_rows(points > 255), _closed_up(signs, used)]
    return np.hstack([*parts, join_bits(4, scales[:, 0::2], scales[:, 1::2])])


def _closed_up(data: Uint8, used: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Uint8:
    """Data of sub-blocks with those of empty ones moved to the end.

    A flaw of the original: it does not advance past a sub-block of zeros, so what follows lands too early.
    """
    order = np.argsort(~used, axis=1, kind="stable")
    grouped = data.reshape(len(data), 8, -1)
    return np.take_along_axis(grouped, order[..., np.newaxis], axis=1).reshape(data.shape)
