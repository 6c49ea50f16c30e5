"""Which type an output tensor gets when it is not quantized.

Source: conversion/base.py of llama.cpp (prepare_tensors), October 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from modelbuild.formats.gguf.types import GgmlType, is_quantized
from modelbuild.formats.safetensors import StoredTensor

#: What may be asked for: one type for all, that of the checkpoint, or every tensor's own.
FLOAT_TYPES = ("auto", "F32", "F16", "BF16", "source")

_FILE_TYPES = {GgmlType.F32: 0, GgmlType.F16: 1, GgmlType.BF16: 32}
#: Names that are F32 whatever is asked for: small tensors that decide a lot.
_ALWAYS_F32 = re.compile(
    r"(?:blk\.\d+\.(?:ffn_gate_inp|ffn_gate_inp_shexp|ssm_conv1d(?:_[qkv])?|shortconv\.conv|time_mix_first|time_mix_w[12]"
    r"|time_mix_decay_w[12]|time_mix_lerp_fused|altup_correct_coef|altup_predict_coef|indexer\.proj)"
    r"|position_embd|token_types|v\.position_embd|a\.position_embd|posnet\.\d+\.norm[12])\.weight",
    re.ASCII,
)
_NARROWABLE = (".weight", ".lora_a", ".lora_b")


def wanted_type(float_type: str, stored: Iterable[StoredTensor]) -> GgmlType:
    """The type for tensors that may be narrow: the asked one, or that of the first stored matrix in half precision."""
    if float_type not in ("auto", "source"):
        return GgmlType[float_type]
    for tensor in stored:
        if len(tensor.shape) >= 2 and tensor.dtype in ("BF16", "F16"):
            return GgmlType[tensor.dtype]
    return GgmlType.F16


def file_type_of(type_: GgmlType) -> int:
    """`general.file_type` of a model of this type."""
    return _FILE_TYPES[type_]


def must_be_f32(name: str, dimensions: int) -> bool:
    """Vectors, norms, biases and a few small tensors are never narrowed."""
    return (
        dimensions <= 1
        or name.endswith("_norm.weight")
        or not name.endswith(_NARROWABLE)
        or _ALWAYS_F32.fullmatch(name) is not None
    )


def output_type(name: str, shape: tuple[int, ...], dtype: str, float_type: str, wanted: GgmlType) -> GgmlType:
    """The type of an output tensor by its GGUF name; packed data stay as they are.

    With float_type "source", a tensor keeps its own precision where a GGUF has it, else it is F32.
    """
    if dtype in GgmlType.__members__ and is_quantized(GgmlType[dtype]):
        return GgmlType[dtype]
    if must_be_f32(name, len(shape)):
        return GgmlType.F32
    if float_type == "source":
        return GgmlType[dtype] if dtype in ("BF16", "F16") else GgmlType.F32
    return wanted
