"""Jais: ALiBi, gated feed-forward and scaled embeddings under GPT-2's names; Jais 2: rotated heads and squared ReLU."""

from __future__ import annotations

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import (
    COMMON_KEYS,
    CONTEXT,
    EMBEDDING,
    FEED_FORWARD,
    NORM_EPSILON,
    block_count,
    file_type,
)
from modelbuild.convert.families.gpt2 import conv1d
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings, multiplied
from modelbuild.convert.family import Count, Extra, Family, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.errors import printable
from modelbuild.formats.gguf.writer import f32

_LAYER = "transformer.h.{b}."
#: The largest slope's exponent; the slopes that checkpoints store follow from it and the number of heads.
_MAX_ALIBI_BIAS = 8.0


def _embedding_scale(model: Model) -> float:
    return model.config.number(("mup_embeddings_scale", "embeddings_scale"))


def _output_scale(model: Model) -> float:
    """The output's scale; the second generation of configurations gives it in two parts."""
    if model.config.has("mup_output_alpha"):
        return model.config.number("mup_output_alpha") * model.config.number("mup_width_scale")
    return model.config.number("width_scale")


def _check(model: Model) -> None:
    """What the runtime takes for granted."""
    for key, wanted in (("activation_function", "swiglu"), ("position_embedding_type", "alibi")):
        found = model.config.text(key)
        if found != wanted:
            raise model.config.error(key, f"{wanted} expected, found {printable(found)!r}")


def _bias_key(_model: Model) -> Extra:
    return Extra(keys=(f32("jais.attention.max_alibi_bias", _MAX_ALIBI_BIAS),))


FAMILIES = (
    Family(
        classes=("JAISLMHeadModel",),
        architecture="jais",
        defaults={"layer_norm_epsilon": 1e-5},
        keys=(
            block_count,
            CONTEXT,
            EMBEDDING,
            FEED_FORWARD,
            Count("attention.head_count", names.HEAD_COUNT, "head_count"),
            NORM_EPSILON,
            file_type,
        ),
        tensors=(
            matrix("transformer.wte", "token_embd", "? hidden", multiplied(_embedding_scale)),
            norm("transformer.ln_f", "output_norm", bias="required"),
            matrix("lm_head", "output", "vocab hidden", multiplied(_output_scale)),
            norm(f"{_LAYER}ln_1", f"{BLOCK}attn_norm", bias="required"),
            norm(f"{_LAYER}ln_2", f"{BLOCK}ffn_norm", bias="required"),
            conv1d(f"{_LAYER}attn.c_attn", f"{BLOCK}attn_qkv", "hidden", "3*hidden"),
            conv1d(f"{_LAYER}attn.c_proj", f"{BLOCK}attn_output", "hidden", "hidden"),
            conv1d(f"{_LAYER}mlp.c_fc", f"{BLOCK}ffn_up", "hidden", "ff"),
            conv1d(f"{_LAYER}mlp.c_fc2", f"{BLOCK}ffn_gate", "hidden", "ff"),
            conv1d(f"{_LAYER}mlp.c_proj", f"{BLOCK}ffn_down", "ff", "hidden"),
        ),
        drop=("transformer.relative_pe.slopes", "transformer.h.*.attn.bias"),
        check=_check,
        extras=_bias_key,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("jais",),
    ),
    Family(
        classes=("Jais2ForCausalLM",),
        architecture="jais2",
        defaults={"num_key_value_heads": same_heads, "layer_norm_eps": 1e-5, "rope_theta": 500000.0},
        keys=(*COMMON_KEYS, Value("rope.dimension_count", lambda model: model.head_dim)),
        tensors=(
            *embeddings(norm_bias="required"),
            *block_norms(bias="required"),
            *attention(bias="required"),
            matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden", bias="required"),
            matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff", bias="required"),
        ),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("jais-2",),
    ),
)
