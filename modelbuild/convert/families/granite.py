"""Granite, dense and with experts: Llama with multipliers for embeddings, attention, residuals and logits."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE
from modelbuild.convert.config import Default
from modelbuild.convert.families.llama import LLAMA_ATTENTION, LLAMA_TENSORS, same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, halve_expert_rows, halve_rows, rename_to_standard
from modelbuild.convert.family import Family, KeyRule, Number, Value, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.tokenizers.llama import llama_tokenizer

GRANITE_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    VOCAB_SIZE,
    Value("rope.dimension_count", lambda model: model.head_dim),
    Number("attention.scale", "attention_multiplier"),
    Number("embedding_scale", "embedding_multiplier"),
    Number("residual_scale", "residual_multiplier"),
    Number("logit_scale", "logits_scaling"),
)


def _shared(model: Model) -> int | None:
    return model.config.optional_integer("shared_intermediate_size", "feed_forward_length")


def _has_shared(model: Model, _block: int) -> bool:
    return bool(_shared(model))


_MOE = f"{LAYER}block_sparse_moe."

GRANITE_DEFAULTS: dict[str, Default] = {
    "num_key_value_heads": same_heads,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_multiplier": 1.0,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "logits_scaling": 1.0,
}

FAMILIES = (
    Family(
        classes=("GraniteForCausalLM",),
        architecture="granite",
        defaults=GRANITE_DEFAULTS,
        keys=GRANITE_KEYS,
        tensors=LLAMA_TENSORS,
        rename=rename_to_standard,
        extras=llama3_frequencies,
        tokenizer=llama_tokenizer,
        pre_tokenizers=("refact",),
    ),
    Family(
        classes=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
        architecture="granitemoe",
        defaults={**GRANITE_DEFAULTS, "num_local_experts": 8, "num_experts_per_tok": 2},
        keys=(
            *GRANITE_KEYS,
            Value("expert_shared_feed_forward_length", lambda model: _shared(model) or None),
        ),
        tensors=(
            *LLAMA_ATTENTION,
            matrix(f"{_MOE}router.layer", f"{BLOCK}ffn_gate_inp", "experts hidden"),
            matrix(
                f"{_MOE}input_linear",
                (f"{BLOCK}ffn_gate_exps", f"{BLOCK}ffn_up_exps"),
                "experts 2*ff hidden",
                halve_expert_rows,
            ),
            matrix(f"{_MOE}output_linear", f"{BLOCK}ffn_down_exps", "experts hidden ff"),
            matrix(
                f"{LAYER}shared_mlp.input_linear",
                (f"{BLOCK}ffn_gate_shexp", f"{BLOCK}ffn_up_shexp"),
                "2*shared_ff hidden",
                halve_rows,
                when=_has_shared,
            ),
            matrix(f"{LAYER}shared_mlp.output_linear", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_has_shared),
        ),
        sizes={"shared_ff": _shared},
        rename=rename_to_standard,
        extras=llama3_frequencies,
        tokenizer=llama_tokenizer,
        pre_tokenizers=("refact",),
    ),
)
