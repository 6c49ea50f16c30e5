"""PLM: keys and values from a latent that is not absorbed, squared activation without a gate, tied output."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE
from modelbuild.convert.families.deepseek import key_size, latent_size, rope_size, value_size
from modelbuild.convert.families.standard import BLOCK, LAYER, block_norms, embeddings
from modelbuild.convert.family import Family, Value, matrix, norm
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

_A = f"{LAYER}self_attn."

FAMILY = Family(
    classes=("PLMForCausalLM",),
    architecture="plm",
    keys=(
        *COMMON_KEYS,
        VOCAB_SIZE,
        Value("attention.kv_lora_rank", latent_size),
        Value("attention.key_length", lambda model: key_size(model) + rope_size(model)),
        Value("attention.value_length", value_size),
        Value("rope.dimension_count", rope_size),
    ),
    tensors=(
        *embeddings(output="absent"),
        *block_norms(),
        matrix(f"{_A}q_proj", f"{BLOCK}attn_q", "heads*key hidden"),
        matrix(f"{_A}kv_a_proj_with_mqa", f"{BLOCK}attn_kv_a_mqa", "rank+rope hidden"),
        norm(f"{_A}kv_a_layernorm", f"{BLOCK}attn_kv_a_norm", "rank"),
        matrix(f"{_A}kv_b_proj", f"{BLOCK}attn_kv_b", "heads*nope+heads*value rank"),
        matrix(f"{_A}o_proj", f"{BLOCK}attn_output", "hidden heads*value"),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden"),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
    ),
    sizes={
        "key": lambda model: key_size(model) + rope_size(model),
        "nope": key_size,
        "rope": rope_size,
        "value": value_size,
        "rank": latent_size,
    },
    tokenizer=byte_level_bpe,
    pre_tokenizers=("qwen2",),
)
