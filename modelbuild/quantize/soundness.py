"""Finds packed blocks whose scale is not a finite number: damaged files, and weights too large for a type.

llama.cpp refuses such blocks when it loads or quantizes a model (`ggml_validate_row_data`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from modelbuild.formats.gguf.types import GgmlType, block_bytes, block_size

Uint8 = npt.NDArray[np.uint8]
_T = GgmlType
#: Where the float16 fields of a block lie.
_HALF_OFFSETS: Mapping[GgmlType, tuple[int, ...]] = {
    _T.F16: (0,), _T.Q8_0: (0,), _T.Q4_0: (0,), _T.Q5_0: (0,), _T.Q4_1: (0, 2), _T.Q5_1: (0, 2),
    _T.Q1_0: (0,), _T.Q2_0: (0,), _T.IQ4_NL: (0,), _T.IQ4_XS: (0,), _T.TQ1_0: (52,), _T.TQ2_0: (64,),
    _T.Q2_K: (80, 82), _T.Q3_K: (108,), _T.Q4_K: (0, 2), _T.Q5_K: (0, 2), _T.Q6_K: (208,),
    _T.IQ2_XXS: (0,), _T.IQ2_XS: (0,), _T.IQ2_S: (0,), _T.IQ3_XXS: (0,), _T.IQ3_S: (0,), _T.IQ1_S: (0,),
}  # fmt: skip
#: Other numbers: their width in bytes and the exponent bits that are all set when one is not finite.
_WHOLE: Mapping[GgmlType, tuple[str, int]] = {
    _T.BF16: ("<u2", 0x7F80), _T.F32: ("<u4", 0x7F800000), _T.F64: ("<u8", 0x7FF0000000000000),
}  # fmt: skip
_HALF_EXPONENT = 0x7C00
#: The exponent byte that stands for "not a number".
_E8M0_NAN = 0xFF
_IQ1_M_SCALES = 48
#: Blocks looked at together.
_STEP = 1 << 16


def find_unsound_block(data: Uint8, type_: GgmlType) -> tuple[int, int] | None:
    """Row and first column of the first block that no reader accepts; None when all are sound.

    data: shape (rows, row bytes). Types without a scale to check (integers, NVFP4) are always sound.
    """
    size_bytes = block_bytes(type_)
    blocks = np.ascontiguousarray(data).reshape(-1, size_bytes)
    for start in range(0, len(blocks), _STEP):
        bad = _unsound(blocks[start : start + _STEP], type_)
        if bad is not None and bad.any():
            row, block = divmod(start + int(bad.argmax()), data.shape[1] // size_bytes)
            return row, block * block_size(type_)
    return None


def _unsound(blocks: Uint8, type_: GgmlType) -> npt.NDArray[np.bool_] | None:
    """Per block whether it is unsound; None when nothing can be."""
    if type_ in _HALF_OFFSETS:
        fields = np.hstack([blocks[:, offset : offset + 2] for offset in _HALF_OFFSETS[type_]])
        return _has_exponent(fields, "<u2", _HALF_EXPONENT)
    if type_ in _WHOLE:
        return _has_exponent(blocks, *_WHOLE[type_])
    if type_ is _T.MXFP4:
        return np.asarray(blocks[:, 0] == _E8M0_NAN)
    if type_ is _T.IQ1_M:
        words = np.ascontiguousarray(blocks[:, _IQ1_M_SCALES:]).view("<u2")
        scale = (
            (words[:, 0] >> 12) | ((words[:, 1] >> 8) & 0xF0) | ((words[:, 2] >> 4) & 0xF00) | (words[:, 3] & 0xF000)
        )
        return np.asarray((scale & _HALF_EXPONENT) == _HALF_EXPONENT)
    return None


def _has_exponent(fields: Uint8, word: str, exponent: int) -> npt.NDArray[np.bool_]:
    bits = np.ascontiguousarray(fields).view(word)
    mask = bits.dtype.type(exponent)
    return np.asarray(((bits & mask) == mask).any(axis=1))
