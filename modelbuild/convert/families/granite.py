"""Granite: Llama with multipliers for embeddings, attention, residuals and logits."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE
from modelbuild.convert.families.llama import LLAMA_TENSORS, same_heads
from modelbuild.convert.families.standard import rename_to_standard
from modelbuild.convert.family import Family, KeyRule, Number, Value
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

FAMILY = Family(
    classes=("GraniteForCausalLM",),
    architecture="granite",
    defaults={
        "num_key_value_heads": same_heads,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    },
    keys=GRANITE_KEYS,
    tensors=LLAMA_TENSORS,
    rename=rename_to_standard,
    extras=llama3_frequencies,
    tokenizer=llama_tokenizer,
    pre_tokenizers=("refact",),
)
