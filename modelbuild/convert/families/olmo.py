"""OLMo 2: norms after attention and feed-forward, none before; norms of queries and keys over all heads."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, gated_mlp
from modelbuild.convert.family import Family, norm
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

FAMILY = Family(
    classes=("Olmo2ForCausalLM",),
    architecture="olmo2",
    defaults={
        "num_key_value_heads": lambda config: config.get("num_attention_heads"),
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    },
    keys=COMMON_KEYS,
    tensors=(
        *embeddings(),
        *attention(),
        norm(f"{LAYER}self_attn.q_norm", f"{BLOCK}attn_q_norm", "q"),
        norm(f"{LAYER}self_attn.k_norm", f"{BLOCK}attn_k_norm", "kv"),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
        norm(f"{LAYER}post_feedforward_layernorm", f"{BLOCK}post_ffw_norm"),
        *gated_mlp(),
    ),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("dbrx",),
)
