"""Chameleon: Llama with norms of queries and keys for each head; pictures are tokens, and the part that makes them is
left out.
"""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    block_norms,
    embeddings,
    gated_mlp,
    permute_k,
    permute_q,
)
from modelbuild.convert.family import Family, TensorRule, Value
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import ColumnMap, concatenate, take_rows


def _one_for_all(source: Source, heads: int) -> Source:
    """The first head's numbers for every head, from rotary halves to pairs: the heads were trained with the same."""
    size = source.shape[-1]
    columns = tuple(half + pair for pair in range(size // 2) for half in (0, size // 2))
    return concatenate((ColumnMap(take_rows(source, 0, 1), columns),) * heads)


def _q_norm(source: Source, model: Model, _block: int) -> Source:
    return _one_for_all(source, model.heads)


def _k_norm(source: Source, model: Model, _block: int) -> Source:
    return _one_for_all(source, model.kv_heads)


_HEAD_NORMS = (
    TensorRule(
        f"{LAYER}self_attn.q_norm",
        f"{BLOCK}attn_q_norm",
        "heads head",
        _q_norm,
        bias="optional",
        bias_shape="heads head",
    ),
    TensorRule(
        f"{LAYER}self_attn.k_norm",
        f"{BLOCK}attn_k_norm",
        "kv_heads head",
        _k_norm,
        bias="optional",
        bias_shape="kv_heads head",
    ),
)

FAMILY = Family(
    classes=("ChameleonForConditionalGeneration", "ChameleonForCausalLM"),
    architecture="chameleon",
    defaults={
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    },
    keys=(*COMMON_KEYS, Value("swin_norm", lambda model: model.config.boolean("swin_norm", False))),
    tensors=(
        *embeddings(),
        *block_norms(),
        *attention(q=permute_q, k=permute_k, bias="optional"),
        *_HEAD_NORMS,
        *gated_mlp(bias="optional"),
    ),
    drop=("model.vqmodel.*",),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("chameleon",),
)
