"""Baichuan and Orion: early relatives of Llama, the first with queries, keys and values in one matrix."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, block_count, file_type
from modelbuild.convert.families.llama import same_heads
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
from modelbuild.convert.family import Count, Family, Number, Value, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.sentencepiece import sentencepiece
from modelbuild.convert.transforms import take_rows

_LAYOUT = Value("tensor_data_layout", "Meta AI original pth")


def _unpack(source: Source, model: Model, block: int) -> tuple[Source, ...]:
    third = source.shape[0] // 3
    q, k, v = (take_rows(source, part * third, (part + 1) * third) for part in range(3))
    return permute_q(q, model, block), permute_k(k, model, block), v


FAMILIES = (
    Family(
        classes=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
        architecture="baichuan",
        defaults={"rms_norm_eps": 1e-6},
        keys=(*COMMON_KEYS, _LAYOUT, Value("rope.dimension_count", lambda model: model.head_dim)),
        tensors=(
            *embeddings(),
            *block_norms(),
            matrix(
                f"{LAYER}self_attn.W_pack",
                (f"{BLOCK}attn_q", f"{BLOCK}attn_k", f"{BLOCK}attn_v"),
                "3*hidden hidden",
                _unpack,
            ),
            matrix(f"{LAYER}self_attn.o_proj", f"{BLOCK}attn_output", "hidden hidden"),
            *gated_mlp(),
        ),
        tokenizer=sentencepiece,
    ),
    Family(
        classes=("OrionForCausalLM",),
        architecture="orion",
        defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-5},
        keys=(
            file_type,
            _LAYOUT,
            Count(
                "context_length",
                ("max_sequence_length", "max_position_embeddings", "model_max_length"),
                "context_length",
            ),
            Count("embedding_length", "hidden_size", "embedding_length"),
            block_count,
            Count("feed_forward_length", "intermediate_size", "feed_forward_length"),
            Value("attention.head_count", lambda model: model.heads),
            Value("attention.head_count_kv", lambda model: model.kv_heads),
            Number("attention.layer_norm_epsilon", "rms_norm_eps"),  # so called, but its norms are not of that kind
        ),
        tensors=(
            *embeddings(norm_bias="required"),
            *block_norms(bias="required"),
            *attention(),
            *gated_mlp(),
        ),
        tokenizer=sentencepiece,
    ),
)
