"""The arithmetic that all packers share: float32 throughout, every operation rounded on its own, sums in order.

Lane arrays have shape (n, lanes): element i of every group in row i. Sums go over axis 0, so each lane adds its
elements one after the other, as the scalar original does, while many lanes are worked on at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Uint8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

#: Below this largest magnitude the searches call a group empty.
EMPTY = np.float32(1e-15)
#: 1.5 * 2**23: adding it leaves the rounded integer in the low 23 bits.
_MAGIC = np.float32(12582912.0)
_MAGIC_BITS = np.int32(0x4B400000)
_MANTISSA = np.int32(0x007FFFFF)
_EXPONENT = np.int32(0x4B000000)
_ZERO = np.float32(0)
_ONE = np.float32(1)
#: Adding to negative zero changes nothing.
FROM_FIRST = np.float32(-0.0)


def as_lanes(blocks: Float32, size: int) -> Float32:
    """Blocks of shape (n, k * size) as lanes of shape (size, n * k), C-contiguous."""
    return np.ascontiguousarray(blocks.reshape(-1, size).T)


def from_lanes(lanes: Float32, columns: int) -> Float32:
    """The inverse of `as_lanes`: rows of `columns` elements."""
    return np.ascontiguousarray(lanes.T).reshape(-1, columns)


def ordered_sum(lanes: Float32, start: np.float32 = _ZERO) -> Float32:
    """Per lane the sum of its elements, added one after the other to `start`; shape (lanes,).

    With FROM_FIRST the first element is the start, which matters for sums of negative zeros only.
    """
    if lanes.shape[1] == 1:
        # A single column would be summed pairwise.
        total: Float32 = np.add.accumulate(np.vstack([np.full((1, 1), start), lanes]), axis=0)[-1]
    else:
        total = np.add.reduce(lanes, axis=0, initial=start)
    return total


def first_largest(lanes: Float32) -> Float32:
    """Per lane the signed element of largest magnitude, the first among equals; +0 for a lane of zeros."""
    # NaN, which only overflow makes, is passed over, as C's comparisons do.
    index = np.fmax(np.abs(lanes), _ZERO).argmax(axis=0)
    found = np.take_along_axis(lanes, index[np.newaxis], axis=0)[0]
    return np.where(found == 0, _ZERO, found)


def first_min(lanes: Float32) -> Float32:
    """Per lane the least element; of zeros of both signs the first one."""
    found: Float32 = np.take_along_axis(lanes, lanes.argmin(axis=0)[np.newaxis], axis=0)[0]
    return found


def first_max(lanes: Float32) -> Float32:
    """Per lane the greatest element; of zeros of both signs the first one."""
    found: Float32 = np.take_along_axis(lanes, lanes.argmax(axis=0)[np.newaxis], axis=0)[0]
    return found


def inverse(values: Float32) -> Float32:
    """One over each value, 0 where the value is 0."""
    return np.where(values != 0, _ONE / values, _ZERO)


def round_levels(values: Float32, low: int, high: int) -> Float32:
    """Values rounded half to even and cut to [low, high], still as float32; `values` is overwritten.

    Outside +-2**22 the result is whatever the bits give, as in the original.
    """
    values += _MAGIC
    bits = values.view(np.int32)
    bits &= _MANTISSA
    bits |= _EXPONENT
    np.clip(bits, _MAGIC_BITS + np.int32(low), _MAGIC_BITS + np.int32(high), out=bits)
    values -= _MAGIC
    return values


def round_int(values: Float32) -> Int32:
    """Values rounded half to even, as int32, without a limit; the bit form of `round_levels`."""
    bits = (values + _MAGIC).view(np.int32)
    return (bits & _MANTISSA) - np.int32(0x400000)


def round_half_away(values: Float32) -> Float32:
    """Values rounded half away from zero: C's roundf."""
    # The largest float32 below one half keeps 0.49999997 at 0 and everything from 0.5 on at 1.
    return np.trunc(values + np.copysign(np.float32(0.49999997), values))


def low_byte(values: Float32) -> npt.NDArray[np.int8]:
    """Values cut towards zero to int32, then the low byte as int8; 0 for what int32 cannot hold, as on x86-64."""
    return np.where(np.abs(values) < np.float32(2.0**31), values, _ZERO).astype(np.int32).astype(np.int8)


def half_bytes(values: Float32) -> Uint8:
    """Values of shape (n,) or (n, k) as little-endian float16, (n, 2) or (n, 2 * k); NaN becomes the quiet NaN."""
    bits = values.astype("<f2").view("<u2")
    if np.isnan(values).any():
        bits = np.where(np.isnan(values), (bits & 0x8000) | 0x7E00, bits).astype("<u2")
    per_row = values.shape[1] if values.ndim > 1 else 1
    return np.ascontiguousarray(bits).view(np.uint8).reshape(len(values), 2 * per_row)


def as_stored(values: Float32) -> Float32:
    """Values as they are after being stored as float16."""
    return values.astype(np.float16).astype(np.float32)


def halves(data: Uint8) -> Float32:
    """Little-endian float16 bytes of shape (n, 2 * k) as float32 of shape (n, k)."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def join_bits(width: int, *parts: Uint8) -> Uint8:
    """Bytes made of one code of `width` bits from each part, the first part lowest; wider codes spill over."""
    joined = parts[0]
    for index, part in enumerate(parts[1:], 1):
        joined = joined | (part << np.uint8(index * width))
    return joined


def split_bits(width: int, data: Uint8) -> list[Uint8]:
    """The inverse of `join_bits`: the codes of `width` bits in each byte, the lowest first."""
    return [low_bits(data >> np.uint8(shift), width) for shift in range(0, 8, width)]


def low_bits(codes: Uint8, width: int) -> Uint8:
    """The lowest `width` bits of each code."""
    return codes & np.uint8((1 << width) - 1)


def pack_nibbles(codes: Uint8) -> Uint8:
    """Codes of shape (..., size): byte j holds element j in its low half and element j + size/2 in its high half."""
    half = codes.shape[-1] // 2
    return join_bits(4, codes[..., :half], codes[..., half:])


def unpack_nibbles(data: Uint8) -> Uint8:
    """The inverse of `pack_nibbles`."""
    return np.concatenate(split_bits(4, data), axis=-1)


def pack_bit_rows(bits: Bool) -> Uint8:
    """Bits of shape (n, 8 * k) as (n, k) bytes, element n in bit n % 8 of byte n // 8."""
    return np.packbits(bits, axis=1, bitorder="little")
