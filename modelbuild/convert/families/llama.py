"""Llama 1 to 3, Mistral, Mixtral, SmolLM3 and what is built alike: rotary halves become neighbouring pairs."""

from __future__ import annotations

from dataclasses import replace

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE, not_causal
from modelbuild.convert.config import Config, Default
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    block_norms,
    embeddings,
    gated_mlp,
    permute_k,
    permute_q,
    rename_to_standard,
)
from modelbuild.convert.family import Family, KeyRule, TensorRule, Value, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.pooling import pooling_keys
from modelbuild.convert.rope import llama3_frequencies
from modelbuild.convert.tokenizers.llama import llama_tokenizer


def same_heads(config: Config) -> object:
    """As many key and value heads as query heads."""
    return config.get("num_attention_heads")


def even_head_dim(config: Config) -> object:
    """The width divided by the heads, None when there is no such number; what is wrong is reported elsewhere."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if type(hidden) is int and type(heads) is int and heads > 0 and hidden % heads == 0:
        return hidden // heads
    return None


LLAMA_DEFAULTS: dict[str, Default] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": same_heads,
    "head_dim": even_head_dim,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
_VOXTRAL_DEFAULTS: dict[str, Default] = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e8,
}
MISTRAL_DEFAULTS: dict[str, Default] = {
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
LLAMA_KEYS: tuple[KeyRule, ...] = (
    *COMMON_KEYS,
    VOCAB_SIZE,
    Value("rope.dimension_count", lambda model: model.head_dim),
)
LLAMA_ATTENTION: tuple[TensorRule, ...] = (
    *embeddings(),
    *block_norms(),
    *attention(q=permute_q, k=permute_k, bias="optional"),
)
LLAMA_TENSORS = (*LLAMA_ATTENTION, *gated_mlp(bias="optional"))
#: How often the blocks are run through.
_LOOP_KEYS: tuple[KeyRule, ...] = (
    Value("num_loops", lambda model: model.config.integer("num_loops", "block_count", 1)),
    Value("skip_loop_final_norm", lambda model: model.config.boolean("skip_loop_final_norm", False)),
)
MIXTRAL_EXPERTS = (
    matrix(f"{LAYER}block_sparse_moe.gate", f"{BLOCK}ffn_gate_inp", "experts hidden"),
    matrix(f"{LAYER}block_sparse_moe.experts.{{e}}.w1", f"{BLOCK}ffn_gate_exps", "ff hidden"),
    matrix(f"{LAYER}block_sparse_moe.experts.{{e}}.w2", f"{BLOCK}ffn_down_exps", "hidden ff"),
    matrix(f"{LAYER}block_sparse_moe.experts.{{e}}.w3", f"{BLOCK}ffn_up_exps", "ff hidden"),
)
MIXTRAL_TENSORS = (*LLAMA_ATTENTION, *MIXTRAL_EXPERTS)


def _rename_sarashina(name: str, _model: Model) -> str:
    """The language model inside of a vision model; a norm beside it belongs to the pictures."""
    if name.startswith("llm."):
        return name.removeprefix("llm.")
    return "" if name.startswith("norm.") else name


_LLAMA = Family(
    classes=(
        "LlamaForCausalLM",
        "LLaMAForCausalLM",
        "LlamaModel",
        "IQuestCoderForCausalLM",
        "VLlama3ForCausalLM",
    ),
    architecture="llama",
    defaults=LLAMA_DEFAULTS,
    keys=LLAMA_KEYS,
    tensors=LLAMA_TENSORS,
    rename=rename_to_standard,
    extras=llama3_frequencies,
    tokenizer=llama_tokenizer,
)

#: What Janus looks at and paints pictures with.
_JANUS_PICTURES = ("model.aligner.*", "model.vqmodel.*", "model.generation_*")

FAMILIES = (
    _LLAMA,
    replace(_LLAMA, classes=("VoxtralForConditionalGeneration",), defaults=_VOXTRAL_DEFAULTS),
    replace(_LLAMA, classes=("Sarashina2VisionForCausalLM",), rename=_rename_sarashina),
    replace(_LLAMA, classes=("JanusForConditionalGeneration",), drop=_JANUS_PICTURES),
    replace(
        _LLAMA,
        classes=("NanbeigeForCausalLM",),
        architecture="nanbeige",
        defaults={},
        keys=(*LLAMA_KEYS, *_LOOP_KEYS),
    ),
    replace(_LLAMA, classes=("MistralForCausalLM",), defaults=MISTRAL_DEFAULTS),
    replace(
        _LLAMA,
        classes=("LlavaForConditionalGeneration",),  # a text model that only names its type
        defaults={
            **LLAMA_DEFAULTS,
            "num_key_value_heads": lambda config: 8 if config.get("model_type") == "mistral" else same_heads(config),
        },
    ),
    replace(
        _LLAMA,
        classes=("MixtralForCausalLM",),
        defaults={
            **MISTRAL_DEFAULTS,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e6,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
        tensors=MIXTRAL_TENSORS,
    ),
    replace(
        _LLAMA,
        classes=("ArceeForCausalLM",),
        architecture="arcee",
        defaults={**LLAMA_DEFAULTS, "intermediate_size": 18432, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        tensors=(
            *LLAMA_ATTENTION,
            matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden"),
            matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
        ),
    ),
    replace(
        _LLAMA,
        classes=("LlamaBidirectionalModel",),
        architecture="llama-embed",
        keys=(*LLAMA_KEYS, not_causal, pooling_keys),
    ),
    replace(
        _LLAMA,
        classes=("SmolLM3ForCausalLM",),
        architecture="smollm3",
        defaults={
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 2e6,
        },
    ),
)
