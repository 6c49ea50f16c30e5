"""The element types of GGUF tensors and the value types of GGUF metadata: ids, block sizes, names.

Source of all numbers: ggml.h, ggml-common.h and gguf.h of llama.cpp (October 2026), read from the library at run time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from modelbuild.errors import InputError


class GgmlType(enum.IntEnum):
    """The type of a tensor's elements, with the id that stands in files. Ids missing here were removed from ggml."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42


class ValueType(enum.IntEnum):
    """The type of a metadata value, with the id that stands in files."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


#: Bytes of a value of fixed size; strings and arrays are not listed.
VALUE_BYTES: Mapping[ValueType, int] = {
    ValueType.U8: 1, ValueType.I8: 1, ValueType.U16: 2, ValueType.I16: 2, ValueType.U32: 4, ValueType.I32: 4,
    ValueType.F32: 4, ValueType.BOOL: 1, ValueType.U64: 8, ValueType.I64: 8, ValueType.F64: 8,
}  # fmt: skip

#: Elements and bytes of one block.
_BLOCKS: Mapping[GgmlType, tuple[int, int]] = {
    GgmlType.F32: (1, 4), GgmlType.F16: (1, 2), GgmlType.BF16: (1, 2), GgmlType.F64: (1, 8),
    GgmlType.I8: (1, 1), GgmlType.I16: (1, 2), GgmlType.I32: (1, 4), GgmlType.I64: (1, 8),
    GgmlType.Q4_0: (32, 18), GgmlType.Q4_1: (32, 20), GgmlType.Q5_0: (32, 22), GgmlType.Q5_1: (32, 24),
    GgmlType.Q8_0: (32, 34), GgmlType.Q8_1: (32, 36), GgmlType.IQ4_NL: (32, 18), GgmlType.MXFP4: (32, 17),
    GgmlType.NVFP4: (64, 36), GgmlType.Q2_0: (64, 18), GgmlType.Q1_0: (128, 18),
    GgmlType.Q2_K: (256, 84), GgmlType.Q3_K: (256, 110), GgmlType.Q4_K: (256, 144), GgmlType.Q5_K: (256, 176),
    GgmlType.Q6_K: (256, 210), GgmlType.Q8_K: (256, 292), GgmlType.TQ1_0: (256, 54), GgmlType.TQ2_0: (256, 66),
    GgmlType.IQ2_XXS: (256, 66), GgmlType.IQ2_XS: (256, 74), GgmlType.IQ2_S: (256, 82), GgmlType.IQ3_XXS: (256, 98),
    GgmlType.IQ3_S: (256, 110), GgmlType.IQ1_S: (256, 50), GgmlType.IQ1_M: (256, 56), GgmlType.IQ4_XS: (256, 136),
}  # fmt: skip

#: `general.file_type` to the text that Ollama shows; every id missing here is shown as unknown.
FILE_TYPE_NAMES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0",
}  # fmt: skip


def block_size(type_: GgmlType) -> int:
    """How many elements one block holds; 1 for types that are not quantized."""
    return _BLOCKS[type_][0]


def block_bytes(type_: GgmlType) -> int:
    """How many bytes one block takes."""
    return _BLOCKS[type_][1]


def row_bytes(type_: GgmlType, columns: int) -> int:
    """How many bytes a row of `columns` elements takes; InputError SHAPE when it is no whole number of blocks."""
    size, size_bytes = _BLOCKS[type_]
    if columns % size:
        raise InputError(
            "SHAPE", f"rows of {columns} elements cannot be {type_.name}, which packs blocks of {size} elements"
        )
    return columns // size * size_bytes


def is_quantized(type_: GgmlType) -> bool:
    """Does the type pack several elements into one block?"""
    return _BLOCKS[type_][0] > 1
