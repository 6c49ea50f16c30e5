"""OLMo 1 (norms without weights), OLMo 2 and 3 (norms after each part), OLMoE."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, sliding_pattern
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
from modelbuild.convert.family import Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, bool_array, u32

_EXPERTS = f"{LAYER}mlp.experts.{{e}}."
_WIDE_NORMS = (
    norm(f"{LAYER}self_attn.q_norm", f"{BLOCK}attn_q_norm", "q"),
    norm(f"{LAYER}self_attn.k_norm", f"{BLOCK}attn_k_norm", "kv"),
)
_DEFAULTS = {"num_key_value_heads": same_heads, "max_position_embeddings": 2048, "rope_theta": 10000.0}


def _window_keys(model: Model) -> Iterable[KeyValue]:
    """OLMo 3 alone has windows, in all blocks but every fourth where nothing else is said."""
    window = model.config.optional_integer("sliding_window")
    if window is None:
        return
    yield u32(model.key("attention.sliding_window"), window)
    flags = sliding_pattern(model) or [(block + 1) % 4 != 0 for block in range(model.layers)]
    yield bool_array(model.key("attention.sliding_window_pattern"), flags)


_OLMO2_TENSORS = (
    *embeddings(),
    *attention(),
    *_WIDE_NORMS,
    norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm"),
    norm(f"{LAYER}post_feedforward_layernorm", f"{BLOCK}post_ffw_norm"),
    *gated_mlp(),
)

FAMILIES = (
    Family(
        classes=("OlmoForCausalLM", "OLMoForCausalLM"),
        architecture="olmo",
        defaults=_DEFAULTS,
        keys=(
            *COMMON_KEYS,
            Value("attention.layer_norm_epsilon", 1e-5),
            Number("attention.clamp_kqv", "clip_qkv"),
        ),
        tensors=(
            *embeddings(last_norm=False),
            *attention(q=permute_q, k=permute_k),
            *gated_mlp(),
        ),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("olmo",),
    ),
    Family(
        classes=("Olmo2ForCausalLM",),
        architecture="olmo2",
        defaults={**_DEFAULTS, "rms_norm_eps": 1e-5},
        keys=(*COMMON_KEYS, _window_keys),
        tensors=_OLMO2_TENSORS,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("dbrx",),
    ),
    Family(
        classes=("Olmo3ForCausalLM",),
        architecture="olmo2",
        defaults={**_DEFAULTS, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "sliding_window": 4096},
        keys=(*COMMON_KEYS, _window_keys),
        tensors=_OLMO2_TENSORS,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("dbrx",),
    ),
    Family(
        classes=("OlmoeForCausalLM",),
        architecture="olmoe",
        defaults={
            **_DEFAULTS,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "num_experts": 64,
            "num_experts_per_tok": 8,
        },
        keys=(*COMMON_KEYS, Value("attention.layer_norm_rms_epsilon", 1e-5)),
        tensors=(
            *embeddings(),
            *block_norms(),
            *attention(),
            *_WIDE_NORMS,
            matrix(f"{LAYER}mlp.gate", f"{BLOCK}ffn_gate_inp", "experts hidden"),
            matrix(f"{_EXPERTS}down_proj", f"{BLOCK}ffn_down_exps", "hidden ff"),
            matrix(f"{_EXPERTS}gate_proj", f"{BLOCK}ffn_gate_exps", "ff hidden"),
            matrix(f"{_EXPERTS}up_proj", f"{BLOCK}ffn_up_exps", "ff hidden"),
        ),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("olmo",),
    ),
)
