"""Seed-OSS: Qwen2's tensors, with its second norm named for where it stands."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, gated_mlp
from modelbuild.convert.family import Family, norm
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

FAMILY = Family(
    classes=("SeedOssForCausalLM",),
    architecture="seed_oss",
    defaults={
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 524288,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    },
    keys=COMMON_KEYS,
    tensors=(
        *embeddings(),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
        *attention(bias="optional", output_bias="absent"),
        *gated_mlp(),
    ),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("seed-coder",),
)
