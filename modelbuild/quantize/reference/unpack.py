"""Unpackers of all block types without a grid: packed bytes back to float32, every product rounded on its own.

Each takes blocks of shape (n, block bytes) and gives (n, block size). Formulas: dequantize_row_* in ggml-quants.c of
llama.cpp (October 2026).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelbuild.quantize.reference import fp4, iq4
from modelbuild.quantize.reference.arrays import Float32, Uint8, halves, low_bits, split_bits, unpack_nibbles
from modelbuild.quantize.reference.kbits import (
    unpack_high_bits,
    unpack_pairs_of_32,
    unpack_q6,
    unpack_quads,
    unpack_scales_3,
    unpack_scales_6,
)
from modelbuild.quantize.reference.ternary import TQ1_RUNS

_FOUR = np.uint8(4)


def unpack_f32(blocks: Uint8) -> Float32:
    """Little-endian float32."""
    return np.ascontiguousarray(blocks).view("<f4").astype(np.float32)


def unpack_f16(blocks: Uint8) -> Float32:
    """Little-endian float16, exact."""
    return halves(blocks)


def unpack_bf16(blocks: Uint8) -> Float32:
    """Little-endian bfloat16, exact."""
    return _shift_up(np.ascontiguousarray(blocks).view("<u2"))


def unpack_q8_0(blocks: Uint8) -> Float32:
    """scale * code."""
    return halves(blocks[:, :2]) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)


def unpack_q4_0(blocks: Uint8) -> Float32:
    """(code - 8) * scale."""
    return (_floats(unpack_nibbles(blocks[:, 2:])) - np.float32(8)) * halves(blocks[:, :2])


def unpack_q4_1(blocks: Uint8) -> Float32:
    """code * scale + minimum."""
    return _floats(unpack_nibbles(blocks[:, 4:])) * halves(blocks[:, :2]) + halves(blocks[:, 2:4])


def unpack_q5_0(blocks: Uint8) -> Float32:
    """(code - 16) * scale."""
    codes = _five_bit_codes(blocks[:, 2:6], blocks[:, 6:])
    return (_floats(codes) - np.float32(16)) * halves(blocks[:, :2])


def unpack_q5_1(blocks: Uint8) -> Float32:
    """code * scale + minimum."""
    codes = _five_bit_codes(blocks[:, 4:8], blocks[:, 8:])
    return _floats(codes) * halves(blocks[:, :2]) + halves(blocks[:, 2:4])


def unpack_q1_0(blocks: Uint8) -> Float32:
    """The scale with the sign of each bit."""
    scale = halves(blocks[:, :2])
    return np.where(np.unpackbits(blocks[:, 2:], axis=1, bitorder="little") != 0, scale, -scale)


def unpack_q2_0(blocks: Uint8) -> Float32:
    """(code - 1) * scale."""
    codes = np.stack(split_bits(2, blocks[:, 2:]), axis=2).reshape(len(blocks), 64)
    return (_floats(codes) - np.float32(1)) * halves(blocks[:, :2])


def unpack_q2_k(blocks: Uint8) -> Float32:
    """(d * scale) * code - dmin * offset, per 16."""
    scales = blocks[:, :16]
    d, dmin = halves(blocks[:, 80:82]), halves(blocks[:, 82:84])
    return _affine(unpack_quads(blocks[:, 16:80]), d, low_bits(scales, 4), dmin, scales >> _FOUR)


def unpack_q3_k(blocks: Uint8) -> Float32:
    """(d * (scale - 32)) * (code - 4), per 16."""
    codes = unpack_quads(blocks[:, 32:96]) | unpack_high_bits(blocks[:, :32], 2)
    step = halves(blocks[:, 108:110]) * (_floats(unpack_scales_3(blocks[:, 96:108])) - np.float32(32))
    return _scaled(_floats(codes) - np.float32(4), step)


def unpack_q4_k(blocks: Uint8) -> Float32:
    """(d * scale) * code - dmin * offset, per 32."""
    scales, offsets = unpack_scales_6(blocks[:, 4:16])
    codes = unpack_pairs_of_32(blocks[:, 16:])
    return _affine(codes, halves(blocks[:, :2]), scales, halves(blocks[:, 2:4]), offsets)


def unpack_q5_k(blocks: Uint8) -> Float32:
    """(d * scale) * code - dmin * offset, per 32."""
    scales, offsets = unpack_scales_6(blocks[:, 4:16])
    codes = unpack_pairs_of_32(blocks[:, 48:]) | unpack_high_bits(blocks[:, 16:48], 4)
    return _affine(codes, halves(blocks[:, :2]), scales, halves(blocks[:, 2:4]), offsets)


def unpack_q6_k(blocks: Uint8) -> Float32:
    """(d * scale) * (code - 32), per 16."""
    codes = unpack_q6(blocks[:, :128], blocks[:, 128:192])
    step = halves(blocks[:, 208:210]) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return _scaled(_floats(codes) - np.float32(32), step)


def unpack_q8_k(blocks: Uint8) -> Float32:
    """d * code, with d in float32; the type occurs in memory only, and here for completeness."""
    d = np.ascontiguousarray(blocks[:, :4]).view("<f4").astype(np.float32)
    return d * np.ascontiguousarray(blocks[:, 4:260]).view(np.int8).astype(np.float32)


def unpack_iq4_nl(blocks: Uint8) -> Float32:
    """scale * table value."""
    return halves(blocks[:, :2]) * iq4.VALUES[unpack_nibbles(blocks[:, 2:])]


def unpack_iq4_xs(blocks: Uint8) -> Float32:
    """(d * (scale - 32)) * table value, per 32."""
    high = np.stack(split_bits(2, blocks[:, 2:4]), axis=2).reshape(len(blocks), 8)
    low = np.stack(split_bits(4, blocks[:, 4:8]), axis=2).reshape(len(blocks), 8)
    step = halves(blocks[:, :2]) * (_floats(low | (high << _FOUR)) - np.float32(32))
    codes = unpack_nibbles(blocks[:, 8:].reshape(len(blocks), 8, 16)).reshape(len(blocks), 256)
    return _scaled(iq4.VALUES[codes], step)


def unpack_tq1_0(blocks: Uint8) -> Float32:
    """(digit - 1) * scale; digit k of a byte is the top third of its value times 3**k."""
    parts = []
    offset = 0
    for _, size_bytes, count in TQ1_RUNS:
        data = blocks[:, offset : offset + size_bytes]
        shifted = [data * np.uint8(3**index) for index in range(count)]
        parts += [((part.astype(np.uint16) * np.uint16(3)) >> np.uint16(8)).astype(np.uint8) for part in shifted]
        offset += size_bytes
    return (_floats(np.hstack(parts)) - np.float32(1)) * halves(blocks[:, 52:54])


def unpack_tq2_0(blocks: Uint8) -> Float32:
    """(code - 1) * scale."""
    return (_floats(unpack_quads(blocks[:, :64])) - np.float32(1)) * halves(blocks[:, 64:66])


def unpack_mxfp4(blocks: Uint8) -> Float32:
    """The doubled value of the code times half the scale."""
    return fp4.VALUES[unpack_nibbles(blocks[:, 1:])] * fp4.e8m0_half(blocks[:, :1])


def unpack_nvfp4(blocks: Uint8) -> Float32:
    """The doubled value of the code times half the scale, per 16."""
    codes = unpack_nibbles(blocks[:, 4:].reshape(len(blocks), 4, 8)).reshape(len(blocks), 64)
    return _scaled(fp4.VALUES[codes], fp4.ue4m3_half(blocks[:, :4]))


def _shift_up(bits: npt.NDArray[np.uint16]) -> Float32:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _floats(codes: Uint8) -> Float32:
    return codes.astype(np.float32)


def _five_bit_codes(high: Uint8, low: Uint8) -> Uint8:
    return unpack_nibbles(low) | (np.unpackbits(high, axis=1, bitorder="little") << _FOUR)


def _scaled(values: Float32, steps: Float32) -> Float32:
    """Values of shape (n, size) times one step per group, steps of shape (n, groups)."""
    grouped = values.reshape(len(values), steps.shape[1], -1)
    return (steps[..., np.newaxis] * grouped).reshape(values.shape)


def _affine(codes: Uint8, d: Float32, scales: Uint8, dmin: Float32, offsets: Uint8) -> Float32:
    product = _scaled(_floats(codes), d * _floats(scales))
    lows = (dmin * _floats(offsets))[..., np.newaxis]
    return (product.reshape(len(codes), scales.shape[1], -1) - lows).reshape(codes.shape)
