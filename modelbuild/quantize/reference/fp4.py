"""Packers of MXFP4 and NVFP4: 4-bit floats (E2M1) with a shared scale of 8 bits.

Formulas: ggml-quants.c and ggml-impl.h of llama.cpp (October 2026). Scales are stored for values twice as large as the
codes stand for, so the tables of codes hold doubled values and the scales decode to halves.
"""

from __future__ import annotations

import numpy as np

from modelbuild.quantize.reference.arrays import Float32, Int32, Uint8, pack_nibbles

#: The doubled values of the 16 codes; code 8, negative zero, is never made.
VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
NVFP4_GROUP = 16
_ZERO = np.float32(0)


def pack_mxfp4(blocks: Float32, _weights: Float32 | None) -> Uint8:
    """Blocks of 32: an exponent byte, 16 bytes of two codes."""
    greatest = np.abs(blocks).max(axis=1)
    # log2 in float32, as in the original: just below a power of two it rounds up to the integer.
    logarithm = np.log2(greatest.astype(np.float64)).astype(np.float32)
    exponent = np.where(greatest > 0, np.floor(logarithm), np.float32(-125)).astype(np.int32)
    stored = np.where(greatest > 0, exponent + 125, 0).astype(np.uint8)
    codes = _nearest_codes(blocks, e8m0_half(stored)[:, np.newaxis])
    return np.hstack([stored[:, np.newaxis], pack_nibbles(codes)])


def pack_nvfp4(blocks: Float32, _weights: Float32 | None) -> Uint8:
    """Blocks of 64: four scales (UE4M3), one per 16 elements, then 8 bytes of two codes for each of them."""
    groups = blocks.reshape(len(blocks), 4, NVFP4_GROUP)
    stored = ue4m3(np.abs(groups).max(axis=2) / np.float32(6))
    codes = _nearest_codes(groups, ue4m3_half(stored)[..., np.newaxis])
    return np.hstack([stored, pack_nibbles(codes).reshape(len(blocks), 32)])


def e8m0_half(exponent: Uint8) -> Float32:
    """Half of 2**(exponent - 127), subnormal for the two least exponents."""
    wide = exponent.astype(np.int32)
    bits: Int32 = np.where(wide < 2, np.int32(0x00200000) << wide, (wide - 1) << 23)
    return bits.astype(np.int32).view(np.float32)


def ue4m3_half(code: Uint8) -> Float32:
    """Half of a float with 4 exponent and 3 mantissa bits; the top bit is ignored, the NaN code counts as 0."""
    exponent, mantissa = ((code >> 3) & 15).astype(np.int32), (code & 7).astype(np.float32)
    small = mantissa * np.float32(2.0**-9)
    usual = (np.float32(1) + mantissa / np.float32(8)) * np.exp2((exponent - 7).astype(np.float32))
    value = np.where(exponent == 0, small, usual) * np.float32(0.5)
    return np.where((code == 0) | (code == 0x7F), _ZERO, value).astype(np.float32)


def ue4m3(values: Float32) -> Uint8:
    """The code of each value, rounded half up on the first bit that is cut off; at most 448, at least 0."""
    value = np.minimum(values, np.float32(448))
    bits = np.where(value > 0, value, np.float32(1)).view(np.int32)
    exponent = (bits >> 23) - 127 + 7
    mantissa = ((bits >> 20) & 7) + ((bits >> 19) & 1)
    exponent_up = exponent + (mantissa > 7)
    usual = np.where(exponent_up >= 15, 0x7E, (exponent_up << 3) | (mantissa & 7))
    small = np.minimum(np.trunc(value * np.float32(512) + np.float32(0.5)), np.float32(7)).astype(np.int32)
    code = np.where(exponent <= 0, small, np.where(exponent >= 15, 0x7E, usual))
    return np.where(value > 0, code, 0).astype(np.uint8)


def _nearest_codes(x: Float32, scale: Float32) -> Uint8:
    """The first of the codes whose value times scale is nearest to x."""
    best = np.abs(VALUES[0] * scale - x)
    codes = np.zeros(x.shape, np.uint8)
    for code in range(1, 16):
        error = np.abs(VALUES[code] * scale - x)
        better = error < best
        np.copyto(best, error, where=better)
        np.copyto(codes, np.uint8(code), where=better)
    return codes
