"""Packers of TQ1_0 and TQ2_0: every element is -1, 0 or 1 times the largest magnitude of the block.

Formulas: ggml-quants.c of llama.cpp (October 2026).
"""

from __future__ import annotations

import numpy as np

from modelbuild.quantize.reference.arrays import (
    Float32,
    Uint8,
    half_bytes,
    inverse,
    low_bits,
    low_byte,
    round_half_away,
)
from modelbuild.quantize.reference.kbits import pack_quads

#: Where each run of digit groups lies: first element, bytes, digits per byte.
TQ1_RUNS = ((0, 32, 5), (160, 16, 5), (240, 4, 4))


def pack_tq1_0(blocks: Float32, _weights: Float32 | None) -> Uint8:
    """Blocks of 256: 52 bytes of five (the last four bytes: four) base-3 digits, float16 scale."""
    scale, digits = _trits(blocks)
    return np.hstack([*(_pack_run(digits, *run) for run in TQ1_RUNS), half_bytes(scale)])


def pack_tq2_0(blocks: Float32, _weights: Float32 | None) -> Uint8:
    """Blocks of 256: 64 bytes of 2-bit codes, float16 scale; value = scale * (code - 1)."""
    scale, digits = _trits(blocks)
    return np.hstack([pack_quads(low_bits(digits, 2)), half_bytes(scale)])


def _trits(blocks: Float32) -> tuple[Float32, Uint8]:
    scale = np.abs(blocks).max(axis=1)
    rounded = round_half_away(blocks * inverse(scale)[:, np.newaxis])
    return scale, (low_byte(rounded) + np.int8(1)).view(np.uint8)


def _pack_run(digits: Uint8, start: int, size_bytes: int, count: int) -> Uint8:
    """Bytes whose digits lie `size_bytes` elements apart; the value is a fraction of 243, scaled to 256, rounded up."""
    parts = digits[:, start : start + size_bytes * count].reshape(len(digits), count, size_bytes)
    value = np.zeros((len(digits), size_bytes), np.uint8)
    for index in range(count):
        value = value * np.uint8(3) + parts[:, index]
    if count == 4:
        value = value * np.uint8(3)
    return ((value.astype(np.uint16) * np.uint16(256) + np.uint16(242)) // np.uint16(243)).astype(np.uint8)
