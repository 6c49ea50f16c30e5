"""The bit layouts of the K types and their kin, both ways; codes have shape (n, 256), one byte each.

Source: ggml-common.h of llama.cpp (October 2026).
"""

from __future__ import annotations

import numpy as np

from modelbuild.quantize.reference.arrays import Uint8


def pack_quads(codes: Uint8) -> Uint8:
    """2-bit codes: byte 32*H + l holds elements 128*H + l + 32*k at bits 2*k."""
    parts = codes.reshape(len(codes), 2, 4, 32)
    joined = parts[:, :, 0] | parts[:, :, 1] << 2 | parts[:, :, 2] << 4 | parts[:, :, 3] << 6
    return joined.reshape(len(codes), 64)


def unpack_quads(data: Uint8) -> Uint8:
    """The inverse of `pack_quads`."""
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    return ((data.reshape(len(data), 2, 1, 32) >> shifts) & 3).reshape(len(data), 256)


def pack_high_bits(codes: Uint8) -> Uint8:
    """Bit 2 of the codes: that of element n is bit n // 32 of byte n % 32."""
    bits = (codes.reshape(len(codes), 8, 32) >> 2) & 1
    return np.packbits(bits, axis=1, bitorder="little").reshape(len(codes), 32)


def unpack_high_bits(data: Uint8) -> Uint8:
    """The bits of `pack_high_bits` as 0 or 1."""
    return np.unpackbits(data.reshape(len(data), 1, 32), axis=1, bitorder="little").reshape(len(data), 256)


def pack_pairs_of_32(codes: Uint8) -> Uint8:
    """4-bit codes: byte 32*g + l holds element 64*g + l low and 64*g + 32 + l high."""
    parts = codes.reshape(len(codes), 4, 2, 32)
    return (parts[:, :, 0] | parts[:, :, 1] << 4).reshape(len(codes), 128)


def unpack_pairs_of_32(data: Uint8) -> Uint8:
    """The inverse of `pack_pairs_of_32`."""
    parts = data.reshape(len(data), 4, 1, 32)
    return np.concatenate([parts & 15, parts >> 4], axis=2).reshape(len(data), 256)


def pack_q6(codes: Uint8) -> Uint8:
    """6-bit codes: 128 bytes of low halves, 64 bytes of high quarters."""
    parts = codes.reshape(len(codes), 2, 4, 32)
    low = np.concatenate([parts[:, :, 0:2] & 15 | (parts[:, :, 2:4] & 15) << 4], axis=2).reshape(len(codes), 128)
    return np.hstack([low, pack_quads(codes >> 4)])


def unpack_q6(low: Uint8, high: Uint8) -> Uint8:
    """The codes 0..63 of 128 low and 64 high bytes."""
    halves = low.reshape(len(low), 2, 2, 32)
    return np.concatenate([halves & 15, halves >> 4], axis=2).reshape(len(low), 256) | unpack_quads(high) << 4


def pack_scales_3(scales: Uint8) -> Uint8:
    """Sixteen 6-bit scales of Q3_K in 12 bytes: low halves in the first 8, high quarters in the last 4."""
    low = scales[:, :8] & 15 | (scales[:, 8:] & 15) << 4
    high = (scales >> 4).reshape(len(scales), 4, 4)
    return np.hstack([low, high[:, 0] | high[:, 1] << 2 | high[:, 2] << 4 | high[:, 3] << 6])


def unpack_scales_3(data: Uint8) -> Uint8:
    """The inverse of `pack_scales_3`."""
    low = np.hstack([data[:, :8] & 15, data[:, :8] >> 4])
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 4, 1)
    return low | ((data[:, np.newaxis, 8:] >> shifts) & 3).reshape(len(data), 16) << 4


def pack_scales_6(scales: Uint8, offsets: Uint8) -> Uint8:
    """Eight 6-bit scales and offsets of Q4_K and Q5_K in 12 bytes."""
    first = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    second = offsets[:, :4] | (offsets[:, 4:] >> 4) << 6
    return np.hstack([first, second, scales[:, 4:] & 15 | (offsets[:, 4:] & 15) << 4])


def unpack_scales_6(data: Uint8) -> tuple[Uint8, Uint8]:
    """The inverse of `pack_scales_6`."""
    first, second, third = data[:, 0:4], data[:, 4:8], data[:, 8:12]
    scales = np.hstack([first & 63, third & 15 | (first >> 6) << 4])
    return scales, np.hstack([second & 63, third >> 4 | (second >> 6) << 4])
