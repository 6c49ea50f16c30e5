"""NeoBERT in real llama.cpp gives what its definition gives: the heads of its fused projection stand one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.llama_runtime import llama
from tests.unit.convert.families.originals import Array, Weights, attend, project, rms_norm, silu
from tests.unit.convert.families.test_against_originals import (
    TOKENS,
    VOCABULARY,
    compare,
    layered,
    random_weights,
    word_pieces,
    write,
)

pytestmark = pytest.mark.llamacpp
HEADS, EPSILON = 2, 1e-5


def rotate_pairs(heads: Array) -> Array:
    """Rotary embedding of neighbours, as complex numbers; heads: (count, positions, width)."""
    width = heads.shape[-1]
    angles = np.arange(heads.shape[1])[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    turned = (heads[..., 0::2] + 1j * heads[..., 1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], -1).reshape(heads.shape)


def neo_bert(weights: Weights, layers: int) -> Array:
    values = weights["encoder.weight"][TOKENS]
    for number in range(layers):
        layer = f"transformer_encoder.{number}."
        fused = project(rms_norm(values, weights[f"{layer}attention_norm.weight"], EPSILON), weights, f"{layer}qkv")
        by_head = fused.reshape(len(TOKENS), HEADS, -1).transpose(1, 0, 2)
        queries, keys, found = np.split(by_head, 3, -1)
        mixed = attend(rotate_pairs(queries), rotate_pairs(keys), found)
        values = values + project(mixed, weights, f"{layer}wo")
        wide = project(rms_norm(values, weights[f"{layer}ffn_norm.weight"], EPSILON), weights, f"{layer}ffn.w12")
        gate, up = np.split(wide, 2, -1)
        values = values + project(silu(gate) * up, weights, f"{layer}ffn.w3")
    return rms_norm(values, weights["layer_norm.weight"], EPSILON)


def test_neo_bert_ungroups_queries_keys_and_values(tmp_path: Path) -> None:
    """The first token stands for the text; the feed-forward part has two thirds of the configured width."""
    layer = {
        "transformer_encoder.{b}.qkv.weight": (96, 32),
        "transformer_encoder.{b}.wo.weight": (32, 32),
        "transformer_encoder.{b}.ffn.w12.weight": (128, 32),
        "transformer_encoder.{b}.ffn.w3.weight": (32, 64),
        "transformer_encoder.{b}.attention_norm.weight": (32,),
        "transformer_encoder.{b}.ffn_norm.weight": (32,),
    }
    outer = {"encoder.weight": (VOCABULARY, 32), "layer_norm.weight": (32,)}
    weights = random_weights({**outer, **layered(2, layer)})
    config = {
        "architectures": ["NeoBERT"], "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": HEADS,
        "intermediate_size": 96, "max_length": 64, "norm_eps": EPSILON,
    }  # fmt: skip

    with llama(write(tmp_path, config, weights, word_pieces())) as model:
        found = model.embedding(TOKENS)

    compare(weights, lambda w: neo_bert(w, 2)[0], found)
