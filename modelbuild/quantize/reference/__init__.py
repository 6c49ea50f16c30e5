"""Packers and unpackers of all block types in numpy: the definition of our bytes, and the way without a compiler.

PACKERS: type to a function of float32 rows (rows, columns) and importance (columns,) or None that gives uint8
(rows, row bytes). UNPACKERS: type to a function of uint8 (rows, row bytes) that gives float32 (rows, columns).
Both work in tiles, so memory stays bounded; both expect sound shapes (`modelbuild.quantize.pack` checks them).
"""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.formats.gguf.types import GgmlType
from modelbuild.quantize.reference import fp4, iq1, iq2, iq3, iq4, kquants, simple, ternary, unpack, unpack_grid
from modelbuild.quantize.reference.rows import (
    RowPacker,
    Unpacker,
    pack_by_blocks,
    unpack_by_blocks,
    weigh_by_block,
    weigh_by_row,
    weigh_plainly,
)

__all__ = ["PACKERS", "UNPACKERS"]

_T = GgmlType
PACKERS: Mapping[GgmlType, RowPacker] = {
    _T.F32: simple.pack_f32,
    _T.F16: simple.pack_f16,
    _T.BF16: simple.pack_bf16,
    _T.Q8_0: pack_by_blocks(_T.Q8_0, simple.pack_q8_0),
    _T.Q4_0: pack_by_blocks(_T.Q4_0, simple.pack_q4_0, weigh_by_row),
    _T.Q4_1: pack_by_blocks(_T.Q4_1, simple.pack_q4_1, weigh_by_row),
    _T.Q5_0: pack_by_blocks(_T.Q5_0, simple.pack_q5_0, weigh_by_row),
    _T.Q5_1: pack_by_blocks(_T.Q5_1, simple.pack_q5_1, weigh_by_row),
    _T.Q1_0: pack_by_blocks(_T.Q1_0, simple.pack_q1_0),
    _T.Q2_0: pack_by_blocks(_T.Q2_0, simple.pack_q2_0),
    _T.Q2_K: pack_by_blocks(_T.Q2_K, kquants.pack_q2_k, weigh_by_block(1)),
    _T.Q3_K: pack_by_blocks(_T.Q3_K, kquants.pack_q3_k, weigh_by_block(2)),
    _T.Q4_K: pack_by_blocks(_T.Q4_K, kquants.pack_q4_k, weigh_by_block(2)),
    _T.Q5_K: pack_by_blocks(_T.Q5_K, kquants.pack_q5_k, weigh_by_block(2)),
    _T.Q6_K: pack_by_blocks(_T.Q6_K, kquants.pack_q6_k, weigh_plainly),
    _T.IQ4_NL: pack_by_blocks(_T.IQ4_NL, iq4.pack_iq4_nl, weigh_by_block(2)),
    _T.IQ4_XS: pack_by_blocks(_T.IQ4_XS, iq4.pack_iq4_xs, weigh_by_block(2)),
    _T.TQ1_0: pack_by_blocks(_T.TQ1_0, ternary.pack_tq1_0),
    _T.TQ2_0: pack_by_blocks(_T.TQ2_0, ternary.pack_tq2_0),
    _T.MXFP4: pack_by_blocks(_T.MXFP4, fp4.pack_mxfp4),
    _T.NVFP4: pack_by_blocks(_T.NVFP4, fp4.pack_nvfp4),
    _T.IQ3_S: pack_by_blocks(_T.IQ3_S, iq3.pack_iq3_s, weigh_by_block(2)),
    _T.IQ3_XXS: pack_by_blocks(_T.IQ3_XXS, iq3.pack_iq3_xxs, weigh_by_block(2)),
    _T.IQ2_S: pack_by_blocks(_T.IQ2_S, iq2.pack_iq2_s, weigh_by_block(2)),
    _T.IQ2_XS: pack_by_blocks(_T.IQ2_XS, iq2.pack_iq2_xs, weigh_by_block(1)),
    _T.IQ2_XXS: pack_by_blocks(_T.IQ2_XXS, iq2.pack_iq2_xxs, weigh_by_block(1)),
    _T.IQ1_M: pack_by_blocks(_T.IQ1_M, iq1.pack_iq1_m, weigh_by_block(2)),
    _T.IQ1_S: pack_by_blocks(_T.IQ1_S, iq1.pack_iq1_s, weigh_by_block(2)),
}

UNPACKERS: Mapping[GgmlType, Unpacker] = {
    type_: unpack_by_blocks(type_, unpack_blocks)
    for type_, unpack_blocks in {
        _T.F32: unpack.unpack_f32,
        _T.F16: unpack.unpack_f16,
        _T.BF16: unpack.unpack_bf16,
        _T.Q8_0: unpack.unpack_q8_0,
        _T.Q4_0: unpack.unpack_q4_0,
        _T.Q4_1: unpack.unpack_q4_1,
        _T.Q5_0: unpack.unpack_q5_0,
        _T.Q5_1: unpack.unpack_q5_1,
        _T.Q1_0: unpack.unpack_q1_0,
        _T.Q2_0: unpack.unpack_q2_0,
        _T.Q2_K: unpack.unpack_q2_k,
        _T.Q3_K: unpack.unpack_q3_k,
        _T.Q4_K: unpack.unpack_q4_k,
        _T.Q5_K: unpack.unpack_q5_k,
        _T.Q6_K: unpack.unpack_q6_k,
        _T.Q8_K: unpack.unpack_q8_k,
        _T.IQ4_NL: unpack.unpack_iq4_nl,
        _T.IQ4_XS: unpack.unpack_iq4_xs,
        _T.TQ1_0: unpack.unpack_tq1_0,
        _T.TQ2_0: unpack.unpack_tq2_0,
        _T.MXFP4: unpack.unpack_mxfp4,
        _T.NVFP4: unpack.unpack_nvfp4,
        _T.IQ3_S: unpack_grid.unpack_iq3_s,
        _T.IQ3_XXS: unpack_grid.unpack_iq3_xxs,
        _T.IQ2_S: unpack_grid.unpack_iq2_s,
        _T.IQ2_XS: unpack_grid.unpack_iq2_xs,
        _T.IQ2_XXS: unpack_grid.unpack_iq2_xxs,
        _T.IQ1_M: unpack_grid.unpack_iq1_m,
        _T.IQ1_S: unpack_grid.unpack_iq1_s,
    }.items()
}
