"""The types that tensors can be packed into, and which of them need an importance matrix."""

from __future__ import annotations

from modelbuild.formats.gguf.types import GgmlType

_T = GgmlType
#: Every type with a quantizer; the others (Q8_1, Q8_K, integers, F64) occur in files but are never made.
TARGET_TYPES: frozenset[GgmlType] = frozenset({
    _T.F32, _T.F16, _T.BF16, _T.Q8_0, _T.Q4_0, _T.Q4_1, _T.Q5_0, _T.Q5_1, _T.Q2_K, _T.Q3_K, _T.Q4_K, _T.Q5_K, _T.Q6_K,
    _T.IQ4_NL, _T.IQ4_XS, _T.TQ1_0, _T.TQ2_0, _T.MXFP4, _T.NVFP4, _T.Q1_0, _T.Q2_0,
    _T.IQ1_S, _T.IQ1_M, _T.IQ2_XXS, _T.IQ2_XS, _T.IQ2_S, _T.IQ3_XXS, _T.IQ3_S,
})  # fmt: skip

#: Types that llama-quantize refuses without an importance matrix, except for the embedding and the output.
POLICY_NEEDS_IMPORTANCE = frozenset({_T.IQ3_XXS, _T.IQ2_XXS, _T.IQ2_XS, _T.IQ2_S, _T.IQ1_M, _T.IQ1_S})

#: Types whose search is not defined without an importance matrix, whatever the tensor.
SEARCH_NEEDS_IMPORTANCE = frozenset({_T.IQ2_XXS, _T.IQ2_XS, _T.IQ1_S})


def find_type(text: str) -> GgmlType | None:
    """The target type of a name such as `q4_K` in any case; None when there is none or it cannot be made."""
    found = GgmlType.__members__.get(text.strip().upper())
    return found if found in TARGET_TYPES else None
