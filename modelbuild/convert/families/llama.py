"""Llama 1 to 3, Mistral and what is built alike: half-split rotary heads become neighbouring pairs."""

from __future__ import annotations

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE
from modelbuild.convert.config import Default
from modelbuild.convert.families.standard import permute_k, permute_q, rename_to_standard
from modelbuild.convert.family import Family, KeyRule, Value, matrix, norm
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.tokenizers.llama import llama_tokenizer

LLAMA_DEFAULTS: dict[str, Default] = {
    "num_key_value_heads": lambda config: config.get("num_attention_heads"),
    "head_dim": lambda config: _ratio(config.get("hidden_size"), config.get("num_attention_heads")),
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
LLAMA_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    VOCAB_SIZE,
    Value("rope.dimension_count", lambda model: model.head_dim),
)
LLAMA_TENSORS = (
    matrix("model.embed_tokens", "token_embd", "? hidden"),
    norm("model.norm", "output_norm"),
    matrix("lm_head", "output", "vocab hidden", weight="optional"),
    norm("model.layers.{b}.input_layernorm", "blk.{b}.attn_norm"),
    matrix("model.layers.{b}.self_attn.q_proj", "blk.{b}.attn_q", "q hidden", permute_q, bias="optional"),
    matrix("model.layers.{b}.self_attn.k_proj", "blk.{b}.attn_k", "kv hidden", permute_k, bias="optional"),
    matrix("model.layers.{b}.self_attn.v_proj", "blk.{b}.attn_v", "kv hidden", bias="optional"),
    matrix("model.layers.{b}.self_attn.o_proj", "blk.{b}.attn_output", "hidden q", bias="optional"),
    norm("model.layers.{b}.post_attention_layernorm", "blk.{b}.ffn_norm"),
    matrix("model.layers.{b}.mlp.gate_proj", "blk.{b}.ffn_gate", "ff hidden", bias="optional"),
    matrix("model.layers.{b}.mlp.up_proj", "blk.{b}.ffn_up", "ff hidden", bias="optional"),
    matrix("model.layers.{b}.mlp.down_proj", "blk.{b}.ffn_down", "hidden ff", bias="optional"),
)


def _ratio(whole: object, part: object) -> int | None:
    """The quotient of two whole numbers, None when there is none; what is wrong with them is reported elsewhere."""
    if type(whole) is int and type(part) is int and part > 0 and whole % part == 0:
        return whole // part
    return None


FAMILIES = (
    Family(
        classes=(
            "LlamaForCausalLM",
            "LLaMAForCausalLM",
            "LlamaModel",
            "IQuestCoderForCausalLM",
            "InternLM3ForCausalLM",
        ),
        architecture="llama",
        defaults=LLAMA_DEFAULTS,
        keys=LLAMA_KEYS,
        tensors=LLAMA_TENSORS,
        rename=rename_to_standard,
        extras=llama3_frequencies,
        tokenizer=llama_tokenizer,
    ),
    Family(
        classes=("MistralForCausalLM",),
        architecture="llama",
        defaults={
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
        },
        keys=LLAMA_KEYS,
        tensors=LLAMA_TENSORS,
        rename=rename_to_standard,
        extras=llama3_frequencies,
        tokenizer=llama_tokenizer,
    ),
)
