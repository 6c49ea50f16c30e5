"""Command-R and R7B: one norm before attention and feed-forward, which run side by side."""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import COMMON_KEYS, SLIDING_WINDOW, VOCAB_SIZE
from modelbuild.convert.families.llama import even_head_dim, same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings, gated_mlp
from modelbuild.convert.family import Count, Family, Number, Value, norm
from modelbuild.convert.tokenizers.bpe import byte_level_bpe

_CONTEXT = ("model_max_length", *names.CONTEXT_LENGTH)

FAMILIES = (
    Family(
        classes=("CohereForCausalLM",),
        architecture="command-r",
        defaults={
            "num_key_value_heads": same_heads,
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-5,
            "logit_scale": 0.0625,
            "rope_theta": 10000.0,
        },
        keys=(
            *COMMON_KEYS,
            Count("context_length", _CONTEXT, "context_length"),
            Number("logit_scale", "logit_scale"),
            Value("rope.scaling.type", "none"),
        ),
        tensors=(
            *embeddings(output="optional"),
            norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
            *attention(),
            norm(f"{LAYER}self_attn.q_norm", f"{BLOCK}attn_q_norm", "heads head", weight="optional"),
            norm(f"{LAYER}self_attn.k_norm", f"{BLOCK}attn_k_norm", "kv_heads head", weight="optional"),
            *gated_mlp(),
        ),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("command-r",),
    ),
    Family(
        classes=("Cohere2ForCausalLM",),
        architecture="cohere2",
        defaults={
            "num_key_value_heads": same_heads,
            "head_dim": even_head_dim,
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-5,
            "logit_scale": 0.0625,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
        },
        keys=(
            *COMMON_KEYS,
            Number("logit_scale", "logit_scale"),
            SLIDING_WINDOW,
            VOCAB_SIZE,
            Value(
                "rope.dimension_count",
                lambda model: int(model.config.number("rotary_pct", 1.0) * (model.hidden // model.heads)),
            ),
            Value("rope.scaling.type", "none"),
        ),
        tensors=(
            *embeddings(output="optional"),
            norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
            *attention(),
            *gated_mlp(),
        ),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("command-r",),
    ),
)
