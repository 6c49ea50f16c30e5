"""Unpackers of the IQ1, IQ2 and IQ3 types: packed bytes back to float32.

Each takes blocks of shape (n, block bytes) and gives (n, 256). Formulas: dequantize_row_iq* in ggml-quants.c of
llama.cpp (October 2026).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelbuild.quantize.reference.arrays import Float32, Uint8, halves, low_bits, split_bits
from modelbuild.quantize.reference.grids import load_grid

Uint16 = npt.NDArray[np.uint16]
Uint32 = npt.NDArray[np.uint32]
_HALF = np.float32(0.5)
_EIGHTH = np.float32(0.125)


def unpack_iq2_xxs(blocks: Uint8) -> Float32:
    """(d * (0.5 + scale) * 0.25) * point value with its sign, a scale per 32."""
    pairs = blocks[:, 2:].reshape(len(blocks), 8, 8)
    words = _words(pairs[..., 4:])
    step = halves(blocks[:, :2]) * (_HALF + _scales_of(words)) * np.float32(0.25)
    points = pairs[..., :4].reshape(len(blocks), 32).astype(np.uint16)
    return _signed_points("IQ2_XXS", points, _signs_of(words), step)


def unpack_iq2_xs(blocks: Uint8) -> Float32:
    """As IQ2_XXS, with a scale per 16."""
    codes = np.ascontiguousarray(blocks[:, 2:66]).view("<u2")
    step = halves(blocks[:, :2]) * (_HALF + _nibbles(blocks[:, 66:])) * np.float32(0.25)
    return _signed_points("IQ2_XS", codes & np.uint16(511), _even_signs((codes >> np.uint16(9)).astype(np.uint8)), step)


def unpack_iq2_s(blocks: Uint8) -> Float32:
    """As IQ2_XS, with all signs stored."""
    high = np.stack(split_bits(2, blocks[:, 66:74]), axis=2).reshape(len(blocks), 32)
    step = halves(blocks[:, :2]) * (_HALF + _nibbles(blocks[:, 74:])) * np.float32(0.25)
    return _signed_points("IQ2_S", _join(blocks[:, 2:34], high), blocks[:, 34:66], step)


def unpack_iq3_xxs(blocks: Uint8) -> Float32:
    """(d * (0.5 + scale) * 0.5) * point value with its sign, a scale per 32."""
    words = _words(blocks[:, 66:].reshape(len(blocks), 8, 4))
    step = halves(blocks[:, :2]) * (_HALF + _scales_of(words)) * _HALF
    return _signed_points("IQ3_XXS", blocks[:, 2:66].astype(np.uint16), _signs_of(words), step)


def unpack_iq3_s(blocks: Uint8) -> Float32:
    """(d * (1 + 2 * scale)) * point value with its sign, a scale per 32."""
    high = np.unpackbits(blocks[:, 66:74], axis=1, bitorder="little")
    scales = _nibbles(blocks[:, 106:])
    step = halves(blocks[:, :2]) * (np.float32(1) + np.float32(2) * scales)
    return _signed_points("IQ3_S", _join(blocks[:, 2:66], high), blocks[:, 74:106], step)


def unpack_iq1_s(blocks: Uint8) -> Float32:
    """(d * (2 * scale + 1)) * (level + shift), scale and shift per 32."""
    words = np.ascontiguousarray(blocks[:, 34:]).view("<u2").astype(np.uint16)
    high = np.stack([(words >> np.uint16(3 * index)) & np.uint16(7) for index in range(4)], axis=2)
    points = _join(blocks[:, 2:34], high.reshape(len(blocks), 32).astype(np.uint8))
    scales = ((words >> np.uint16(12)) & np.uint16(7)).astype(np.float32)
    step = halves(blocks[:, :2]) * (np.float32(2) * scales + np.float32(1))
    shift = np.where(words & np.uint16(0x8000), -_EIGHTH, _EIGHTH)
    return _shifted_points(points, np.repeat(shift, 4, axis=1), step)


def unpack_iq1_m(blocks: Uint8) -> Float32:
    """(d * (2 * scale + 1)) * (level + shift), a scale per 16 and a shift per 8."""
    words = np.ascontiguousarray(blocks[:, 48:]).view("<u2").astype(np.uint16)
    quarters = words >> np.uint16(12)
    bits = (
        quarters[:, 0]
        | quarters[:, 1] << np.uint16(4)
        | quarters[:, 2] << np.uint16(8)
        | quarters[:, 3] << np.uint16(12)
    )
    d = bits.astype("<u2").view("<f2").astype(np.float32)[:, np.newaxis]
    scales = np.stack([(words >> np.uint16(3 * index)) & np.uint16(7) for index in range(4)], axis=2)
    step = d * (np.float32(2) * scales.reshape(len(blocks), 16).astype(np.float32) + np.float32(1))
    nibbles = np.stack(split_bits(4, blocks[:, 32:48]), axis=2).reshape(len(blocks), 32)
    shift = np.where(nibbles & np.uint8(8), -_EIGHTH, _EIGHTH)
    return _shifted_points(_join(blocks[:, :32], low_bits(nibbles, 3)), shift, step)


def _signed_points(name: str, points: Uint16, signs: Uint8, step: Float32) -> Float32:
    values = load_grid(name).values[points].reshape(len(points), step.shape[1], -1)
    negative = np.unpackbits(np.ascontiguousarray(signs), axis=1, bitorder="little").reshape(values.shape)
    scaled = step[..., np.newaxis] * values
    return np.where(negative != 0, -scaled, scaled).reshape(len(points), 256)


def _shifted_points(points: Uint16, shift: Float32, step: Float32) -> Float32:
    values = load_grid("IQ1_S").values[points] + shift[..., np.newaxis]
    grouped = values.reshape(len(points), step.shape[1], -1)
    return (step[..., np.newaxis] * grouped).reshape(len(points), 256)


def _join(low: Uint8, high: Uint8) -> Uint16:
    """Point numbers of a low byte and high bits."""
    return low.astype(np.uint16) | (high.astype(np.uint16) << np.uint16(8))


def _nibbles(data: Uint8) -> Float32:
    """Two 4-bit scales to a byte, in order, as float32."""
    return np.stack(split_bits(4, data), axis=2).reshape(len(data), -1).astype(np.float32)


def _words(data: Uint8) -> Uint32:
    """Little-endian 32-bit words: (n, 8, 4) bytes to (n, 8)."""
    return np.ascontiguousarray(data).view("<u4").astype(np.uint32)[..., 0]


def _scales_of(words: Uint32) -> Float32:
    return (words >> np.uint32(28)).astype(np.float32)


def _signs_of(words: Uint32) -> Uint8:
    codes = np.stack([(words >> np.uint32(7 * index)) & np.uint32(127) for index in range(4)], axis=2)
    return _even_signs(codes.reshape(len(words), 32).astype(np.uint8))


def _even_signs(codes: Uint8) -> Uint8:
    """7-bit sign codes with the eighth bit that makes the number of set bits even."""
    parity = codes ^ (codes >> np.uint8(4))
    parity = parity ^ (parity >> np.uint8(2))
    parity = low_bits(parity ^ (parity >> np.uint8(1)), 1)
    return codes | (parity << np.uint8(7))
