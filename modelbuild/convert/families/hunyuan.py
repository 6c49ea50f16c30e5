"""Hunyuan, dense, with experts, and the text of HunYuan-VL: Llama's tensors with norms of queries and keys, and a base
of the rotation that the file computes.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.config import Default
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings, gated_mlp
from modelbuild.convert.family import Family, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, f32, i32_array, string, u32

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


def _axes(model: Model) -> Iterable[KeyValue]:
    """Rotation along several axes at once: the runtime computes the base from `alpha` itself."""
    rope = model.rope.full
    sections = rope.integers("xdrope_section") or rope.integers("mrope_section")
    if model.rope.kind not in ("xdrope", "dynamic") or sections is None:
        yield from _stretched(model)
        return
    positions = model.config.integer("max_position_embeddings", "context_length")
    yield f32(model.key("rope.freq_base"), rope.number("rope_theta"))
    yield string(model.key("rope.scaling.type"), "none")
    yield f32(model.key("rope.scaling.factor"), rope.number("factor", 1.0))
    yield f32(model.key("rope.scaling.alpha"), rope.number("alpha"))
    yield u32(model.key("rope.scaling.original_context_length"), positions)
    yield u32(model.key("context_length"), positions)
    yield i32_array(model.key("rope.dimension_sections"), sections)


def _uniform(model: Model, key: str) -> int | None:
    """A number that the configuration gives for each layer, or once; the runtime has one for all."""
    value = model.config.get(key)
    numbers = set(model.config.integers(key) or []) if isinstance(value, list) else {model.config.integer(key)}
    if len(numbers) != 1:
        raise model.config.error(key, "the runtime needs the same number for every layer")
    return numbers.pop()


def _stretched_moe(model: Model) -> Iterable[KeyValue]:
    """The same for the model with experts; only the published settings are understood."""
    rope, size = model.rope.full, model.hidden // model.heads
    if model.rope.kind != "dynamic":
        return
    alpha, base = rope.number("alpha", 1000.0), rope.number("rope_theta", 10000.0)
    positions = model.config.integer("max_position_embeddings", "context_length")
    if (alpha, base, size) != (1000.0, 10000.0, 128) or positions not in _POSITIONS:
        message = f"unknown combination of {alpha:g} with {positions} positions, heads of {size} and a base of {base:g}"
        raise rope.error("alpha", message)
    yield f32(model.key("rope.freq_base"), base * alpha ** (size / (size - 2)))
    yield string(model.key("rope.scaling.type"), "none")
    yield f32(model.key("rope.scaling.factor"), 1.0)
    yield u32(model.key("rope.scaling.original_context_length"), _CONTEXT_LENGTH)
    yield u32(model.key("context_length"), _CONTEXT_LENGTH)


def _expert_width(model: Model) -> int | None:
    return _uniform(model, "moe_intermediate_size")


_ATTENTION = (
    *embeddings(),
    *block_norms(),
    *attention(bias="optional"),
    norm(f"{LAYER}self_attn.query_layernorm", f"{BLOCK}attn_q_norm", "head", weight="optional"),
    norm(f"{LAYER}self_attn.key_layernorm", f"{BLOCK}attn_k_norm", "head", weight="optional"),
)
_MLP = f"{LAYER}mlp."

_DEFAULTS: dict[str, Default] = {
    "num_key_value_heads": same_heads,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}

FAMILIES = (
    Family(
        classes=("HunYuanDenseV1ForCausalLM",),
        architecture="hunyuan-dense",
        defaults=_DEFAULTS,
        keys=(*COMMON_KEYS, _stretched),
        tensors=(*_ATTENTION, *gated_mlp(bias="optional")),
        rename=_untie,
        tokenizer=_tokenizer,
        pre_tokenizers=("hunyuan-dense",),
    ),
    Family(
        classes=("HunYuanMoEV1ForCausalLM",),
        architecture="hunyuan-moe",
        defaults=_DEFAULTS,
        keys=(
            *COMMON_KEYS,
            Value("expert_shared_feed_forward_length", lambda model: model.feed_forward),
            Value("expert_feed_forward_length", _expert_width),
            Value("expert_used_count", lambda model: _uniform(model, "moe_topk")),
            Value("expert_shared_count", lambda model: _uniform(model, "num_shared_expert")),
            _stretched_moe,
        ),
        tensors=(
            *_ATTENTION,
            matrix(f"{_MLP}gate.wg", f"{BLOCK}ffn_gate_inp", "experts hidden"),
            matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff"),
            matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden"),
            matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden"),
            matrix(f"{_MLP}shared_mlp.gate_proj", f"{BLOCK}ffn_gate_shexp", "ff hidden"),
            matrix(f"{_MLP}shared_mlp.up_proj", f"{BLOCK}ffn_up_shexp", "ff hidden"),
            matrix(f"{_MLP}shared_mlp.down_proj", f"{BLOCK}ffn_down_shexp", "hidden ff"),
        ),
        rename=_untie,
        sizes={"expert_ff": _expert_width},
        tokenizer=byte_level_bpe,
        pre_tokenizers=("hunyuan",),
    ),
    Family(
        classes=("HunYuanVLForConditionalGeneration",),
        architecture="hunyuan_vl",
        defaults={**_DEFAULTS, "num_experts": None},
        keys=(*COMMON_KEYS, _axes),
        tensors=(*_ATTENTION, *gated_mlp(bias="optional")),
        rename=_untie,
        tokenizer=_tokenizer,
        pre_tokenizers=("hunyuan-dense",),
    ),
)
