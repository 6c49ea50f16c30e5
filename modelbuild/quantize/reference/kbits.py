"""The bit layouts of the K types and their kin, both ways; codes have shape (n, 256), one byte each.

Source: ggml-common.h of llama.cpp (October 2026).
"""

from __future__ import annotations

import numpy as np

from modelbuild.quantize.reference.arrays import Uint8, join_bits, low_bits, split_bits

_FOUR = np.uint8(4)


def pack_quads(codes: Uint8) -> Uint8:
    """2-bit codes: byte 32*H + l holds elements 128*H + l + 32*k at bits 2*k."""
    parts = codes.reshape(len(codes), 2, 4, 32)
    return join_bits(2, *(parts[:, :, index] for index in range(4))).reshape(len(codes), 64)


def unpack_quads(data: Uint8) -> Uint8:
    """The inverse of `pack_quads`."""
    return np.stack(split_bits(2, data.reshape(len(data), 2, 32)), axis=2).reshape(len(data), 256)


def pack_high_bits(codes: Uint8, position: int) -> Uint8:
    """The bit of each code at a position: that of element n is bit n // 32 of byte n % 32."""
    bits = low_bits(codes.reshape(len(codes), 8, 32) >> np.uint8(position), 1)
    return np.packbits(bits, axis=1, bitorder="little").reshape(len(codes), 32)


def unpack_high_bits(data: Uint8, position: int) -> Uint8:
    """The inverse of `pack_high_bits`: the bits, each at its position in an else empty code."""
    bits = np.unpackbits(data.reshape(len(data), 1, 32), axis=1, bitorder="little").reshape(len(data), 256)
    return bits << np.uint8(position)


def pack_pairs_of_32(codes: Uint8) -> Uint8:
    """4-bit codes: byte 32*g + l holds element 64*g + l low and 64*g + 32 + l high."""
    parts = codes.reshape(len(codes), 4, 2, 32)
    return join_bits(4, parts[:, :, 0], parts[:, :, 1]).reshape(len(codes), 128)


def unpack_pairs_of_32(data: Uint8) -> Uint8:
    """The inverse of `pack_pairs_of_32`."""
    return np.stack(split_bits(4, data.reshape(len(data), 4, 32)), axis=2).reshape(len(data), 256)


def pack_q6(codes: Uint8) -> Uint8:
    """6-bit codes: 128 bytes of low halves, 64 bytes of high quarters."""
    parts = low_bits(codes, 4).reshape(len(codes), 2, 4, 32)
    low = join_bits(4, parts[:, :, 0:2], parts[:, :, 2:4]).reshape(len(codes), 128)
    return np.hstack([low, pack_quads(codes >> _FOUR)])


def unpack_q6(low: Uint8, high: Uint8) -> Uint8:
    """The codes 0..63 of 128 low and 64 high bytes."""
    halves = np.concatenate(split_bits(4, low.reshape(len(low), 2, 2, 32)), axis=2).reshape(len(low), 256)
    return halves | (unpack_quads(high) << _FOUR)


def pack_scales_3(scales: Uint8) -> Uint8:
    """Sixteen 6-bit scales of Q3_K in 12 bytes: low halves in the first 8, high quarters in the last 4."""
    halves, quarters = low_bits(scales, 4), scales >> _FOUR
    low = join_bits(4, halves[:, :8], halves[:, 8:])
    return np.hstack([low, join_bits(2, *np.split(quarters, 4, axis=1))])


def unpack_scales_3(data: Uint8) -> Uint8:
    """The inverse of `pack_scales_3`."""
    return np.hstack(split_bits(4, data[:, :8])) | (np.hstack(split_bits(2, data[:, 8:])) << _FOUR)


def pack_scales_6(scales: Uint8, offsets: Uint8) -> Uint8:
    """Eight 6-bit scales and offsets of Q4_K and Q5_K in 12 bytes."""
    first = join_bits(6, scales[:, :4], scales[:, 4:] >> _FOUR)
    second = join_bits(6, offsets[:, :4], offsets[:, 4:] >> _FOUR)
    return np.hstack([first, second, join_bits(4, low_bits(scales[:, 4:], 4), low_bits(offsets[:, 4:], 4))])


def unpack_scales_6(data: Uint8) -> tuple[Uint8, Uint8]:
    """The inverse of `pack_scales_6`: scales and offsets."""
    return _six_bits(data[:, 0:4], low_bits(data[:, 8:12], 4)), _six_bits(data[:, 4:8], data[:, 8:12] >> _FOUR)


def _six_bits(first: Uint8, halves: Uint8) -> Uint8:
    return np.hstack([low_bits(first, 6), halves | ((first >> np.uint8(6)) << _FOUR)])
