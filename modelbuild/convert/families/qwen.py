"""Qwen 2, 2.5 and 3, dense and with experts."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.config import Default
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    block_norms,
    embeddings,
    gated_mlp,
    halve_expert_rows,
    head_norms,
    rename_to_standard,
)
from modelbuild.convert.family import Count, Family, KeyRule, TensorRule, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe

QWEN_DEFAULTS: dict[str, Default] = {
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
_MOE_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    Count("expert_feed_forward_length", "moe_intermediate_size", "feed_forward_length"),
    Count("expert_shared_feed_forward_length", "shared_expert_intermediate_size", "feed_forward_length"),
)
_EXPERTS = f"{LAYER}mlp.experts"


def is_sparse(model: Model, block: int) -> bool:
    """Has this block experts?"""
    dense = model.config.integers("mlp_only_layers") or []
    step = model.config.integer("decoder_sparse_step", default=1) or 1
    return block not in dense and model.experts > 0 and (block + 1) % step == 0


def is_dense(model: Model, block: int) -> bool:
    """Has this block one feed-forward part for all tokens?"""
    return not is_sparse(model, block)


def experts() -> tuple[TensorRule, ...]:
    """Routed experts, one by one or already stacked with gate and up in one tensor."""
    fused, down = f"{_EXPERTS}.gate_up_proj", f"{_EXPERTS}.down_proj"
    return (
        matrix(f"{LAYER}mlp.gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=is_sparse),
        matrix(f"{_EXPERTS}.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=is_sparse, unless=down),
        matrix(
            f"{_EXPERTS}.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=is_sparse, unless=fused
        ),
        matrix(f"{_EXPERTS}.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=is_sparse, unless=fused),
        exact(
            fused,
            (f"{BLOCK}ffn_gate_exps.weight", f"{BLOCK}ffn_up_exps.weight"),
            "experts 2*expert_ff hidden",
            halve_expert_rows,
            presence="optional",
            when=is_sparse,
        ),
        exact(down, f"{BLOCK}ffn_down_exps.weight", "experts hidden expert_ff", presence="optional", when=is_sparse),
    )


def dense_mlp() -> tuple[TensorRule, ...]:
    """The feed-forward part of blocks without experts."""
    return (
        matrix(f"{LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=is_dense),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden", when=is_dense),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff", when=is_dense),
    )


def expert_sizes(model: Model) -> int | None:
    """Width of one routed expert."""
    return model.config.optional_integer("moe_intermediate_size", "feed_forward_length")


SHARED_EXPERT = (
    matrix(f"{LAYER}mlp.shared_expert.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=is_sparse),
    matrix(f"{LAYER}mlp.shared_expert.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=is_sparse),
    matrix(f"{LAYER}mlp.shared_expert.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=is_sparse),
    matrix(f"{LAYER}mlp.shared_expert_gate", f"{BLOCK}ffn_gate_inp_shexp", "1 hidden", when=is_sparse),
)

QWEN2_ATTENTION = attention(bias="optional", output_bias="absent")
QWEN3_ATTENTION = (*attention(bias="optional"), *head_norms())

FAMILIES = (
    Family(
        classes=(
            "Qwen2ForCausalLM",
            "Qwen2Model",
            "KORMoForCausalLM",
            "Qwen2AudioForConditionalGeneration",
            "AudioFlamingo3ForConditionalGeneration",
            "DotsOCRForCausalLM",
        ),
        architecture="qwen2",
        defaults=QWEN_DEFAULTS,
        keys=(*COMMON_KEYS, pooling_keys),
        tensors=(*embeddings(), *block_norms(), *QWEN2_ATTENTION, *gated_mlp()),
        rename=rename_to_standard,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("Qwen3ForCausalLM", "Qwen3Model", "StepVLForConditionalGeneration"),
        architecture="qwen3",
        defaults={**QWEN_DEFAULTS, "head_dim": 128},
        keys=(*COMMON_KEYS, pooling_keys),
        tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *gated_mlp()),
        rename=rename_to_standard,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("Qwen2MoeForCausalLM",),
        architecture="qwen2moe",
        defaults={
            **QWEN_DEFAULTS,
            "num_key_value_heads": 16,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
        },
        keys=_MOE_KEYS,
        tensors=(*embeddings(), *block_norms(), *QWEN2_ATTENTION, *dense_mlp(), *experts(), *SHARED_EXPERT),
        sizes={
            "expert_ff": expert_sizes,
            "shared_ff": lambda model: model.config.optional_integer(
                "shared_expert_intermediate_size", "feed_forward_length"
            ),
        },
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("Qwen3MoeForCausalLM",),
        architecture="qwen3moe",
        defaults={
            **QWEN_DEFAULTS,
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        keys=_MOE_KEYS,
        tensors=(*embeddings(), *block_norms(), *QWEN3_ATTENTION, *dense_mlp(), *experts()),
        sizes={"expert_ff": expert_sizes},
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("qwen2",),
    ),
)
