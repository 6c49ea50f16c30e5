"""Weights as float32 and back: the element types of checkpoints and GGUF files that are not packed in blocks.

Sources of the narrow formats: OCP 8-bit Floating Point Specification (E4M3, E5M2), OCP Microscaling Formats (E8M0),
and ml_dtypes for the FNUZ variants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from modelbuild.errors import InputError, UnsupportedError

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint16]
Wide = npt.NDArray[np.uint32]
Rows = npt.NDArray[np.generic]

FloatName = Literal["F32", "F16", "BF16"]

_NATIVE: Mapping[str, np.dtype[np.generic]] = {
    name: np.dtype(code)
    for name, code in {
        "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
        "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
    }.items()
}  # fmt: skip
_QUIET_NAN_BIT_BF16 = np.uint16(0x0040)
_QUIET_NAN_F16 = np.uint16(0x7E00)
_INFINITE_F16 = 0x7C00
#: The bits of 65520, the smallest float32 that rounds to an infinite float16.
_FIRST_OVERFLOW_BITS = 0x477F_F000
#: Numbers worked on at once: the scratch arrays stay small, the cost of each numpy call does not matter.
_STEP = 1 << 18


def decode(rows: Rows, dtype: str) -> Floats:
    """Elements as float32, exactly; only F64 and wide integers are rounded (to nearest even).

    rows: either typed, of shape (..., columns), or raw little-endian bytes, uint8 of shape (..., bytes per row), where
    the last axis must be contiguous. An uint8 array is raw for every dtype but U8, where both are the same. BF16 may be
    given as uint16, the 8-bit floats are uint8 in both forms.
    Returns shape (..., columns). F32 comes back as a view; everything else is a new array.
    Raises InputError SHAPE when the last axis is no whole number of elements or the typed array has another type, and
    UnsupportedError TYPE for dtypes that are not plain numbers.
    """
    if dtype == "BF16":
        return _widen_bf16(_typed(rows, np.dtype("<u2"), dtype))
    if dtype in _FLOAT8:
        return np.take(_table(dtype), _typed(rows, np.dtype("u1"), dtype).view(np.uint8))
    if dtype not in _NATIVE:
        raise UnsupportedError("TYPE", f"weights of type {dtype} cannot be decoded here")
    typed = _typed(rows, _NATIVE[dtype], dtype)
    if dtype == "F16":
        return _widen_f16(typed)
    with np.errstate(over="ignore"):  # what becomes infinite is found by whoever packs it, with tensor and index
        return typed.astype(np.float32, copy=False)


def encode(values: Floats, dtype: FloatName) -> Rows:
    """float32 as F32 (the array itself), F16 (float16) or BF16 (uint16), rounded to nearest even.

    NaN stays NaN, quiet and with its sign. Raises InputError DATA with the flat index for a finite value that would
    become infinite as F16, because a model must not lose a weight in silence.
    """
    if dtype == "F32":
        return values
    return _narrow_f16(values) if dtype == "F16" else _narrow_bf16(values)


def _typed(rows: Rows, wanted: np.dtype[np.generic], dtype: str) -> Rows:
    """The array with the element type that a dtype stands for; a view, never a copy."""
    if rows.dtype == wanted:
        return rows
    if rows.dtype != np.uint8:
        raise InputError("SHAPE", f"{dtype} weights came as an array of {rows.dtype}")
    if rows.shape[-1] % wanted.itemsize:
        raise InputError("SHAPE", f"rows of {rows.shape[-1]} bytes are no whole number of {dtype} elements")
    return rows.view(wanted)


def _widen_bf16(words: Rows) -> Floats:
    wide = np.empty(words.shape, np.uint32)
    np.left_shift(words, 16, dtype=np.uint32, out=wide)
    return wide.view(np.float32)


def _narrow_bf16(values: Floats) -> Words:
    """Add half of the last kept place (less one when that is even) and cut; a NaN could overflow into infinity."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits >> np.uint32(16)
    kept = rounded.astype(np.uint16)
    rounded &= np.uint32(1)
    rounded += bits
    rounded += np.uint32(0x7FFF)
    rounded >>= np.uint32(16)
    narrow = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        narrow[nan] = kept[nan] | _QUIET_NAN_BIT_BF16
    return narrow


def _widen_f16(halves: Rows) -> Floats:
    """Move exponent and fraction into the places of float32 and correct the bias by a product, which is exact.

    Five times as fast as numpy's own conversion. Infinities and NaN do not fit that scheme and take numpy's way.
    """
    words = halves.view(np.int16)
    if not words.size or words.max() >= _INFINITE_F16 or words.view(np.uint16).max() >= 0x8000 | _INFINITE_F16:
        return halves.astype(np.float32)
    wide = words.astype(np.int32).view(np.uint32)
    wide <<= np.uint32(13)
    wide &= np.uint32(0x8FFF_E000)  # the sign was copied into the bits that are cleared here
    values = wide.view(np.float32)
    values *= np.float32(2.0**112)
    return values


def _narrow_f16(values: Floats) -> Rows:
    flat = np.ascontiguousarray(values).reshape(-1)
    narrow = np.empty(flat.shape, np.uint16)
    scratch = np.empty((2, min(flat.size, _STEP)), np.uint32)
    for start in range(0, flat.size, _STEP):
        part = flat[start : start + _STEP]
        size, exponent = scratch[:, : part.size]
        np.bitwise_and(part.view(np.uint32), np.uint32(0x7FFF_FFFF), out=size)
        if size.max() < _FIRST_OVERFLOW_BITS:
            narrow[start : start + _STEP] = _narrow_finite(part.view(np.uint32), size, exponent)
        else:
            narrow[start : start + _STEP] = _narrow_special(part, start)
    return narrow.view(np.float16).reshape(values.shape)


def _narrow_finite(bits: Wide, size: Wide, exponent: Wide) -> Wide:
    """float16 bits of numbers that have one; `size` holds their magnitudes and is overwritten, like `exponent`.

    Adding a power of two 13 places above a number makes the addition itself round it to the 10 places that are kept,
    to nearest even; below 2^-14 the power stays the same, which gives subnormal numbers. Twice as fast as numpy's own
    conversion, which works on one number at a time.
    """
    np.bitwise_and(size, np.uint32(0x7F80_0000), out=exponent)
    np.maximum(exponent, np.uint32(0x3880_0000), out=exponent)
    exponent += np.uint32(0x0780_0000)
    number = size.view(np.float32)
    number *= np.float32(4)
    number += exponent.view(np.float32)
    np.right_shift(size, np.uint32(13), out=exponent)
    exponent &= np.uint32(0x7C00)
    size &= np.uint32(0x0FFF)
    size += exponent
    np.right_shift(bits, np.uint32(16), out=exponent)
    exponent &= np.uint32(0x8000)
    size |= exponent
    return size


def _narrow_special(values: Floats, start: int) -> Words:
    """The same for numbers of which some are infinite, NaN or too large; `start` is the flat index of the first."""
    with np.errstate(over="ignore", invalid="ignore"):
        words = values.astype(np.float16).view(np.uint16)
    magnitude = words & np.uint16(0x7FFF)
    lost = np.flatnonzero((magnitude == _INFINITE_F16) & np.isfinite(values))
    if lost.size:
        value, index = float(values[lost[0]]), start + int(lost[0])
        message = f"the weight {value:g} at index {index} is beyond the range of F16"
        raise InputError("DATA", message, hint="use BF16 or F32")
    nan = magnitude > _INFINITE_F16  # table and hardware conversions differ in what they keep of a NaN
    words[nan] = (words[nan] & np.uint16(0x8000)) | _QUIET_NAN_F16
    return words


def _e4m3(code: int) -> float:
    """Bias 7, no infinity, NaN at all ones."""
    exponent, mantissa = code >> 3 & 15, code & 7
    if code & 0x7F == 0x7F:
        return float("nan")
    size = mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if code & 0x80 else size


def _e5m2(code: int) -> float:
    """The upper byte of a float16."""
    return float(np.array([code << 8], np.uint16).view(np.float16)[0])


def _e8m0(code: int) -> float:
    """A power of two; NaN at all ones."""
    return float("nan") if code == 0xFF else 2.0 ** (code - 127)


def _e4m3fnuz(code: int) -> float:
    """Bias 8; only minus zero is NaN."""
    exponent, mantissa = code >> 3 & 15, code & 7
    if code == 0x80:
        return float("nan")
    size = mantissa / 8 * 2**-7 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 8)
    return -size if code & 0x80 else size


def _e5m2fnuz(code: int) -> float:
    """Bias 16; only minus zero is NaN."""
    exponent, mantissa = code >> 2 & 31, code & 3
    if code == 0x80:
        return float("nan")
    size = mantissa / 4 * 2**-15 if exponent == 0 else (1 + mantissa / 4) * 2.0 ** (exponent - 16)
    return -size if code & 0x80 else size


_FLOAT8: Mapping[str, Callable[[int], float]] = {
    "F8_E4M3": _e4m3,
    "F8_E5M2": _e5m2,
    "F8_E8M0": _e8m0,
    "F8_E4M3FNUZ": _e4m3fnuz,
    "F8_E5M2FNUZ": _e5m2fnuz,
}


@cache
def _table(dtype: str) -> Floats:
    """The values of all 256 codes; the array is shared and read-only."""
    values = np.array([_FLOAT8[dtype](code) for code in range(256)], np.float32)
    values.flags.writeable = False
    return values
