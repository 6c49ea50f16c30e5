"""StarCoder 2: layer norms and a plain feed-forward part, biases everywhere."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings
from modelbuild.convert.family import Family, matrix
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

FAMILY = Family(
    classes=("Starcoder2ForCausalLM",),
    architecture="starcoder2",
    defaults={
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5,
        "rope_theta": 10000.0,
    },
    keys=COMMON_KEYS,
    tensors=(
        *embeddings(output="optional", norm_bias="required"),
        *block_norms(bias="required"),
        *attention(bias="required"),
        matrix(f"{LAYER}mlp.c_fc", f"{BLOCK}ffn_up", "ff hidden", bias="required"),
        matrix(f"{LAYER}mlp.c_proj", f"{BLOCK}ffn_down", "hidden ff", bias="required"),
    ),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("starcoder",),
)
