"""Phi-3, Phi-3.5 (dense and with experts) and Phi-4: fused projections, and rotary factors for long contexts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import EMBEDDING, FEED_FORWARD, RMS_EPSILON, block_count, file_type
from modelbuild.convert.config import Default
from modelbuild.convert.families.llama import MIXTRAL_EXPERTS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings
from modelbuild.convert.family import Count, Extra, Family, KeyRule, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.rope import long_factors, partial_factor
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.sentencepiece import added_sentencepiece
from modelbuild.formats.gguf.writer import KeyValue, f32, u32

PHI3_DEFAULTS: dict[str, Default] = {
    "num_key_value_heads": lambda config: config.get("num_attention_heads"),
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "sliding_window": None,
}


def rotary_dimensions(model: Model) -> int:
    """How many dimensions of a head are rotated."""
    return int(partial_factor(model, 1.0) * model.hidden) // model.heads


def phi_tokenizer(model: Model) -> Iterable[KeyValue]:
    """Byte-level BPE when the tokenizer says so, else SentencePiece with the tokens of tokenizer.json."""
    files = model.tokenizer_files
    if files.config.get("tokenizer_class") in ("GPT2Tokenizer", "GPT2TokenizerFast"):
        return byte_level_bpe(model)
    return added_sentencepiece(model)


def long_rope_factors(model: Model) -> Extra:
    """Factors for contexts longer and not longer than the original one, and how much attention is scaled."""
    factors = long_factors(model, rotary_dimensions(model))
    if not factors.tensors:
        return factors
    return Extra(factors.tensors, (f32(model.key("rope.scaling.attn_factor"), _attention_factor(model)),))


def _original_context(model: Model) -> int:
    """The context before it was stretched; newer configurations tell it among the rotary settings."""
    return model.rope.full.integer("original_max_position_embeddings", "context_length")


def _attention_factor(model: Model) -> float:
    original = _original_context(model)
    scale = model.config.integer("max_position_embeddings", "context_length") / original
    if scale <= 1.0:
        return 1.0
    if model.rope.kind in ("su", "longrope"):
        return math.sqrt(1 + math.log(scale) / math.log(original))
    if model.rope.kind == "yarn":
        return 0.1 * math.log(scale) + 1.0
    raise model.rope.full.error("rope_type", f"longrope or yarn expected for rotary factors, found {model.rope.kind!r}")


def _heads(model: Model) -> Iterable[KeyValue]:
    yield u32(model.key("attention.head_count"), model.heads)
    yield u32(model.key("attention.head_count_kv"), model.kv_heads)


def _window(model: Model) -> int:
    """0 when there is none: that is how Phi-4 is told from Phi-3."""
    return model.config.integer("sliding_window", default=0)


PHI3_KEYS: tuple[KeyRule, ...] = (
    Count("context_length", names.CONTEXT_LENGTH[:1], "context_length"),
    Value("rope.scaling.original_context_length", _original_context),
    EMBEDDING,
    FEED_FORWARD,
    block_count,
    _heads,
    RMS_EPSILON,
    Value("rope.dimension_count", rotary_dimensions),
    Value("rope.freq_base", lambda model: model.rope.theta),
    file_type,
    Value("attention.sliding_window", _window),
)

FAMILIES = (
    Family(
        classes=("Phi3ForCausalLM", "Phi4ForCausalLMV"),
        architecture="phi3",
        defaults=PHI3_DEFAULTS,
        keys=PHI3_KEYS,
        tensors=(
            *embeddings(),
            *block_norms(),
            matrix(f"{LAYER}self_attn.qkv_proj", f"{BLOCK}attn_qkv", "q+2*kv hidden"),
            matrix(f"{LAYER}self_attn.o_proj", f"{BLOCK}attn_output", "hidden q"),
            matrix(f"{LAYER}mlp.gate_up_proj", f"{BLOCK}ffn_up", "2*ff hidden"),
            matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff"),
        ),
        extras=long_rope_factors,
        tokenizer=phi_tokenizer,
    ),
    Family(
        classes=("PhiMoEForCausalLM",),
        architecture="phimoe",
        defaults={
            **PHI3_DEFAULTS,
            "num_key_value_heads": 8,
            "rope_theta": 1e6,
            "num_local_experts": 16,
            "num_experts_per_tok": 2,
        },
        keys=(
            *PHI3_KEYS,
            Count("expert_used_count", "num_experts_per_tok", "expert_count"),
            Count("expert_count", "num_local_experts", "expert_count"),
        ),
        tensors=(
            matrix("model.embed_tokens", "token_embd", "? hidden"),
            norm("model.norm", "output_norm", bias="required"),
            matrix("lm_head", "output", "vocab hidden", bias="optional"),
            *block_norms(bias="required"),
            *attention(bias="optional"),
            *MIXTRAL_EXPERTS,
        ),
        extras=long_rope_factors,
        tokenizer=phi_tokenizer,
    ),
)
