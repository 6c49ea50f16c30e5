"""Weights as float32 and back: the element types of checkpoints and GGUF files that are not quantized."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

_PLAIN = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4",
          "U32": "<u4", "I64": "<i8", "U64": "<u8", "BOOL": "?"}  # fmt: skip


def decode(rows: Array, dtype: str) -> Floats:
    """Rows as float32; rows are raw bytes (uint8, last axis in bytes) or an array of the element type."""
    if dtype == "BF16":
        words = rows.view("<u2") if rows.dtype == np.uint8 else rows
        wide = np.left_shift(words, 16, dtype=np.uint32)
        return wide.view(np.float32)
    typed = rows.view(_PLAIN[dtype]) if rows.dtype == np.uint8 and dtype not in ("U8", "BOOL") else rows
    return typed.astype(np.float32, copy=False)


def encode(values: Floats, dtype: str) -> Array:
    """float32 as F32, F16 or BF16, rounded to nearest even."""
    if dtype == "F32":
        return values
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 64, rounded).astype(np.uint16)
