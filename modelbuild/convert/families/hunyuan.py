"""Hunyuan, dense: Llama's tensors with norms of queries and keys, and a base of the rotation that the file computes."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings, gated_mlp
from modelbuild.convert.family import Family, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, f32, string, u32

_CONTEXT_LENGTH = 256 * 1024
_POSITIONS = (32 * 1024, 256 * 1024)


def _stretched(model: Model) -> Iterable[KeyValue]:
    """The base that `alpha` stands for, instead of a scaling; only the published settings are understood."""
    rope = model.rope.full
    if model.rope.kind not in ("dynamic", "xdrope"):
        return
    alpha, base = rope.number("alpha", 50.0), rope.number("rope_theta", 10000.0)
    size = model.config.integer("head_dim", "head_dimension")
    yield f32(model.key("rope.freq_base"), base * alpha ** (size / (size - 2)))
    yield string(model.key("rope.scaling.type"), "none")
    yield f32(model.key("rope.scaling.factor"), 1.0)
    if model.rope.kind == "dynamic":
        positions = model.config.integer("max_position_embeddings", "context_length")
        if base != 10000.0 or positions not in _POSITIONS:
            raise rope.error("alpha", f"unknown combination with {positions} positions and a base of {base:g}")
        yield u32(model.key("rope.scaling.original_context_length"), _CONTEXT_LENGTH)
        yield u32(model.key("context_length"), _CONTEXT_LENGTH)


def _tokenizer(model: Model) -> Iterable[KeyValue]:
    yield from byte_level_bpe(model)
    end = model.config.optional_integer("eod_token_id")
    if end is not None:
        yield u32("tokenizer.ggml.eos_token_id", end)
    ends = model.checkpoint.read_object("generation_config.json").get("eos_token_id")
    if isinstance(ends, list) and len(ends) > 1 and isinstance(ends[0], int):
        yield u32("tokenizer.ggml.eot_token_id", ends[0])


def _untie(name: str, model: Model) -> str:
    """An output that is the embedding again is left out."""
    return "" if name == "lm_head.weight" and model.config.boolean("tie_word_embeddings", False) else name


FAMILY = Family(
    classes=("HunYuanDenseV1ForCausalLM",),
    architecture="hunyuan-dense",
    defaults={"num_key_value_heads": same_heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
    keys=(*COMMON_KEYS, _stretched),
    tensors=(
        *embeddings(),
        *block_norms(),
        *attention(bias="optional"),
        norm(f"{LAYER}self_attn.query_layernorm", f"{BLOCK}attn_q_norm", "head", weight="optional"),
        norm(f"{LAYER}self_attn.key_layernorm", f"{BLOCK}attn_k_norm", "head", weight="optional"),
        *gated_mlp(bias="optional"),
    ),
    rename=_untie,
    tokenizer=_tokenizer,
    pre_tokenizers=("hunyuan-dense",),
)
