"""MiniCPM 1 and 3: scaled embeddings and residuals; keys and values from a latent (3)."""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import (
    COMMON_KEYS,
    EMBEDDING,
    FEED_FORWARD,
    VOCAB_SIZE,
    block_count,
    file_type,
    head_counts,
)
from modelbuild.convert.families.deepseek import key_size, latent_size, query_latent_size, rope_size, value_size
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
from modelbuild.convert.family import Count, Extra, Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.rope import long_factors
from modelbuild.convert.tokenizers.sentencepiece import sentencepiece

_A = f"{LAYER}self_attn."


def _factors(model: Model) -> Extra:
    return long_factors(model, model.hidden // model.heads)


def _factors3(model: Model) -> Extra:
    return long_factors(model, rope_size(model))


FAMILIES = (
    Family(
        classes=("MiniCPMForCausalLM",),
        architecture="minicpm",
        defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-6, "rope_theta": 10000.0},
        keys=(
            *COMMON_KEYS,
            Number("embedding_scale", "scale_emb"),
            Value("residual_scale", lambda model: model.config.number("scale_depth") / model.layers**0.5),
            Value("logit_scale", lambda model: model.hidden / model.config.number("dim_model_base")),
        ),
        tensors=(*embeddings(), *block_norms(), *attention(q=permute_q, k=permute_k), *gated_mlp()),
        extras=_factors,
        tokenizer=sentencepiece,
    ),
    Family(
        classes=("MiniCPM3ForCausalLM",),
        architecture="minicpm3",
        defaults={
            "num_key_value_heads": same_heads,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
        },
        keys=(
            file_type,
            Count("context_length", names.CONTEXT_LENGTH[:1], "context_length"),
            EMBEDDING,
            block_count,
            FEED_FORWARD,
            head_counts,
            Number("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            VOCAB_SIZE,
            Value("attention.q_lora_rank", query_latent_size),
            Value("attention.kv_lora_rank", latent_size),
            Value("attention.key_length", lambda model: key_size(model) + rope_size(model)),
            Value("rope.dimension_count", rope_size),
        ),
        tensors=(
            *embeddings(),
            *block_norms(),
            matrix(f"{_A}q_a_proj", f"{BLOCK}attn_q_a", "q_rank hidden"),
            norm(f"{_A}q_a_layernorm", f"{BLOCK}attn_q_a_norm", "q_rank"),
            matrix(f"{_A}q_b_proj", f"{BLOCK}attn_q_b", "heads*key q_rank"),
            matrix(f"{_A}kv_a_proj_with_mqa", f"{BLOCK}attn_kv_a_mqa", "rank+rope hidden"),
            norm(f"{_A}kv_a_layernorm", f"{BLOCK}attn_kv_a_norm", "rank"),
            matrix(f"{_A}kv_b_proj", f"{BLOCK}attn_kv_b", "heads*nope+heads*value rank"),
            matrix(f"{_A}o_proj", f"{BLOCK}attn_output", "hidden heads*value"),
            *gated_mlp(),
        ),
        sizes={
            "key": lambda model: key_size(model) + rope_size(model),
            "nope": key_size,
            "rope": rope_size,
            "value": lambda model: value_size(model) if model.config.has("v_head_dim") else model.hidden // model.heads,
            "rank": latent_size,
            "q_rank": query_latent_size,
        },
        extras=_factors3,
        tokenizer=sentencepiece,
    ),
)
