"""Qwen3-Next and Qwen3.5: linear attention in most blocks, full attention in the others.

Layouts and the order of value heads: conversion/qwen.py of llama.cpp (October 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD
from modelbuild.convert.config import Config, Default
from modelbuild.convert.families.qwen import SHARED_EXPERT, dense_mlp, expert_sizes, experts
from modelbuild.convert.families.standard import BLOCK, LAYER, embeddings, plus_one
from modelbuild.convert.family import Count, Family, KeyRule, Rename, TensorRule, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.rope import partial_factor
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import ColumnMap, Reshaped, concatenate, regroup_rows, split_grouped, take_rows
from modelbuild.convert.value_transforms import Computed
from modelbuild.formats.gguf.writer import KeyValue, bool_array, i32_array, u32

_LINEAR, _FULL = f"{LAYER}linear_attn.", f"{LAYER}self_attn."
_SECTIONS = (11, 11, 10, 0)
_MOST_LAYERS = 4096
_DEFAULTS: dict[str, Default] = {
    "num_key_value_heads": 2,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}


# -- sizes -------------------------------------------------------------------------------------------------------------


def _key_heads(model: Model) -> int:
    return model.config.integer("linear_num_key_heads", "head_count")


def _value_heads(model: Model) -> int:
    return model.config.integer("linear_num_value_heads", "head_count")


def _key_dim(model: Model) -> int:
    return model.config.integer("linear_key_head_dim", "head_dimension")


def _value_dim(model: Model) -> int:
    return model.config.integer("linear_value_head_dim", "head_dimension")


def _inner(model: Model) -> int:
    return _value_heads(model) * _value_dim(model)


def _keys_wide(model: Model) -> int:
    return _key_heads(model) * _key_dim(model)


_SIZES: dict[str, Callable[[Model], int | None]] = {
    "inner": _inner,
    "mixed": lambda model: 2 * _keys_wide(model) + _inner(model),
    "v_heads": _value_heads,
    "v_dim": _value_dim,
    "kernel": lambda model: model.config.integer("linear_conv_kernel_dim"),
    "expert_ff": expert_sizes,
    "shared_ff": lambda model: model.config.optional_integer("shared_expert_intermediate_size", "feed_forward_length"),
}


def _interval(model: Model) -> int:
    return model.config.integer("full_attention_interval", default=4) or 4


def _kinds(config: Config) -> object:
    """What the library makes of a configuration that has no list; None when that is no number of blocks."""
    layers, interval = config.get("num_hidden_layers"), config.get("full_attention_interval") or 4
    if type(layers) is not int or type(interval) is not int or interval < 1 or not 0 < layers <= _MOST_LAYERS:
        return None
    return ["linear_attention" if (block + 1) % interval else "full_attention" for block in range(layers)]


def is_full(model: Model, block: int) -> bool:
    """Does the block attend to all tokens? Blocks that predict further tokens do."""
    types = model.config.texts("layer_types")
    if block >= model.layers:
        return True
    if types is not None and block < len(types):
        return types[block] != "linear_attention"
    return (block + 1) % _interval(model) == 0


def is_linear(model: Model, block: int) -> bool:
    """Has the block linear attention?"""
    return not is_full(model, block)


# -- transforms --------------------------------------------------------------------------------------------------------


def _split_qkvz(source: Source, model: Model, _block: int) -> tuple[Source, Source]:
    """Rows stand per key head as q, k, v, z: all q, all k, all v in one, all z in another."""
    share = _inner(model) // _key_heads(model)
    q, k, v, z = split_grouped(source, _key_heads(model), (_key_dim(model), _key_dim(model), share, share))
    return concatenate((q, k, v)), z


def _squeeze(source: Source, _model: Model, _block: int) -> Source:
    return Reshaped(source, (source.shape[0], source.shape[-1]))


def _decay(source: Source, _model: Model, _block: int) -> Source:
    return Computed(source, negative_exponential=True)


def _tile(source: Source, model: Model, size: int) -> Source:
    """Value heads from grouped by key head to key heads repeated, as the runtime broadcasts them."""
    keys, values = _key_heads(model), _value_heads(model)
    return source if keys == values else regroup_rows(source, (keys, values // keys, size), (1, 0, 2))


def _tile_v(source: Source, model: Model, _block: int) -> Source:
    return _tile(source, model, _value_dim(model))


def _tile_heads(source: Source, model: Model, _block: int) -> Source:
    return _tile(source, model, 1)


def _tile_decay(source: Source, model: Model, block: int) -> Source:
    return _decay(_tile(source, model, 1), model, block)


def _tile_mixed(source: Source, model: Model, _block: int) -> Source:
    """The value rows alone, behind those of queries and keys."""
    if _key_heads(model) == _value_heads(model):
        return source
    before = 2 * _keys_wide(model)
    values = take_rows(source, before, source.shape[0])
    return concatenate((take_rows(source, 0, before), _tile(values, model, _value_dim(model))))


def _tile_convolution(source: Source, model: Model, block: int) -> Source:
    return _tile_mixed(_squeeze(source, model, block), model, block)


def _tile_columns(source: Source, model: Model, _block: int) -> Source:
    keys, values, size = _key_heads(model), _value_heads(model), _value_dim(model)
    if keys == values:
        return source
    ratio = values // keys
    columns = (
        (key * ratio + place) * size + index for place in range(ratio) for key in range(keys) for index in range(size)
    )
    return ColumnMap(source, tuple(columns))


# -- keys --------------------------------------------------------------------------------------------------------------


def _state_keys(model: Model) -> Iterable[KeyValue]:
    for name, value in (
        ("conv_kernel", model.config.integer("linear_conv_kernel_dim")),
        ("state_size", _key_dim(model)),
        ("group_count", _key_heads(model)),
        ("time_step_rank", _value_heads(model)),
        ("inner_size", _inner(model)),
    ):
        yield u32(model.key(f"ssm.{name}"), value)
    if model.config.texts("layer_types") is not None:
        flags = [is_linear(model, block) for block in range(model.block_count)]
        yield bool_array(model.key("attention.recurrent_layers"), flags)
    yield u32(model.key("full_attention_interval"), _interval(model))
    yield u32(model.key("rope.dimension_count"), int(model.head_dim * partial_factor(model, 0.25)))


def _sections(model: Model) -> Iterable[KeyValue]:
    if model.rope.mrope_section is None:
        yield i32_array(model.key("rope.dimension_sections"), _SECTIONS)


def _predicted(model: Model) -> int:
    """Blocks for further tokens: those that are stored, whatever the configuration says of the original."""
    if not model.stored:
        return model.config.integer("mtp_num_hidden_layers", default=0)
    numbers = [_block_number(name) for name in model.stored]
    return max(0, max(numbers, default=0) + 1 - model.layers)


def _block_number(name: str) -> int:
    parts = name.split(".", 3)
    return int(parts[2][:6]) if name.startswith("model.layers.") and parts[2].isdecimal() else -1


def _predicted_key(model: Model) -> int | None:
    return _predicted(model) or None


_MTP_NAMES = {
    "fc": "eh_proj",
    "pre_fc_norm_embedding": "enorm",
    "pre_fc_norm_hidden": "hnorm",
    "norm": "shared_head.norm",
}


def _rename_predicted(name: str, model: Model) -> str:
    """Layers for further tokens under their own prefix become blocks behind those of the model."""
    name = name.replace("model.mtp.", "mtp.", 1) if name.startswith("model.mtp.") else name
    if not name.startswith("mtp."):
        return name
    parts = name.split(".", 3)
    if len(parts) == 4 and parts[1] == "layers" and parts[2].isdecimal():
        return f"model.layers.{model.layers + int(parts[2][:6])}.{parts[3]}"
    if len(parts) == 3 and parts[1] in _MTP_NAMES:
        return f"model.layers.{model.layers}.{_MTP_NAMES[parts[1]]}.{parts[2]}"
    return name


# -- tables ------------------------------------------------------------------------------------------------------------

_FULL_ATTENTION: tuple[TensorRule, ...] = (
    matrix(f"{_FULL}q_proj", f"{BLOCK}attn_q", "2*q hidden", bias="optional", when=is_full),
    matrix(f"{_FULL}k_proj", f"{BLOCK}attn_k", "kv hidden", bias="optional", when=is_full),
    matrix(f"{_FULL}v_proj", f"{BLOCK}attn_v", "kv hidden", bias="optional", when=is_full),
    matrix(f"{_FULL}o_proj", f"{BLOCK}attn_output", "hidden q", when=is_full),
    norm(f"{_FULL}q_norm", f"{BLOCK}attn_q_norm", "head", plus_one, when=is_full),
    norm(f"{_FULL}k_norm", f"{BLOCK}attn_k_norm", "head", plus_one, when=is_full),
)
_NORMS = (
    norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", transform=plus_one),
    norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}post_attention_norm", transform=plus_one),
)
_EMBEDDINGS = embeddings(norm_transform=plus_one)
_STATE = norm(f"{_LINEAR}norm", f"{BLOCK}ssm_norm", "v_dim", when=is_linear)


def _is_predicting(model: Model, block: int) -> bool:
    return block >= model.layers


_PREDICTION = (
    matrix(f"{LAYER}eh_proj", f"{BLOCK}nextn.eh_proj", "hidden 2*hidden", when=_is_predicting),
    norm(f"{LAYER}enorm", f"{BLOCK}nextn.enorm", transform=plus_one, when=_is_predicting),
    norm(f"{LAYER}hnorm", f"{BLOCK}nextn.hnorm", transform=plus_one, when=_is_predicting),
    norm(
        f"{LAYER}shared_head.norm",
        f"{BLOCK}nextn.shared_head_norm",
        transform=plus_one,
        weight="optional",
        when=_is_predicting,
    ),
)
_QWEN35_LINEAR: tuple[TensorRule, ...] = (
    matrix(f"{_LINEAR}in_proj_qkv", f"{BLOCK}attn_qkv", "mixed hidden", _tile_mixed, when=is_linear),
    matrix(f"{_LINEAR}in_proj_z", f"{BLOCK}attn_gate", "inner hidden", _tile_v, when=is_linear),
    matrix(f"{_LINEAR}in_proj_a", f"{BLOCK}ssm_alpha", "v_heads hidden", _tile_heads, when=is_linear),
    matrix(f"{_LINEAR}in_proj_b", f"{BLOCK}ssm_beta", "v_heads hidden", _tile_heads, when=is_linear),
    exact(f"{_LINEAR}A_log", f"{BLOCK}ssm_a", "v_heads", _tile_decay, when=is_linear),
    exact(f"{_LINEAR}dt_bias", f"{BLOCK}ssm_dt.bias", "v_heads", _tile_heads, when=is_linear),
    matrix(f"{_LINEAR}conv1d", f"{BLOCK}ssm_conv1d", "mixed 1 kernel", _tile_convolution, when=is_linear),
    _STATE,
    matrix(f"{_LINEAR}out_proj", f"{BLOCK}ssm_out", "hidden inner", _tile_columns, when=is_linear),
)
_MOE_KEYS: tuple[KeyRule, ...] = (
    EXPERT_FEED_FORWARD,
    Count("expert_shared_feed_forward_length", "shared_expert_intermediate_size", "feed_forward_length"),
)


def _rename_without_predicted(name: str, _model: Model) -> str:
    """MiniCPM-V stores blocks for further tokens that nothing uses, and what merges its pictures."""
    return "" if name.startswith(("mtp", "model.merger.")) else name


def _qwen35(classes: tuple[str, ...], architecture: str, *, sparse: bool, rename: Rename = _rename_predicted) -> Family:
    parts = (*dense_mlp(), *experts(), *SHARED_EXPERT) if sparse else dense_mlp()
    return Family(
        classes=classes,
        architecture=architecture,
        defaults={**_DEFAULTS, "num_key_value_heads": 2 if sparse else 4},
        keys=(
            *COMMON_KEYS,
            *_MOE_KEYS,
            Value("nextn_predict_layers", _predicted_key),
            _state_keys,
            _sections,
        ),
        tensors=(*_EMBEDDINGS, *_NORMS, *_QWEN35_LINEAR, *_FULL_ATTENTION, *parts, *_PREDICTION),
        sizes=_SIZES,
        rename=rename,
        block_count=lambda model: model.layers + _predicted(model),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("qwen35", "qwen2"),
    )


FAMILIES = (
    Family(
        classes=("Qwen3NextForCausalLM",),
        architecture="qwen3next",
        defaults={
            **_DEFAULTS,
            "max_position_embeddings": 32768,
            "layer_types": _kinds,
            "num_experts": 512,
            "num_experts_per_tok": 10,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
        },
        keys=(*COMMON_KEYS, *_MOE_KEYS, Value("nextn_predict_layers", _predicted_key), _state_keys),
        tensors=(
            *_EMBEDDINGS,
            *_NORMS,
            matrix(
                f"{_LINEAR}in_proj_qkvz",
                (f"{BLOCK}attn_qkv", f"{BLOCK}attn_gate"),
                "mixed+inner hidden",
                _split_qkvz,
                when=is_linear,
            ),
            matrix(f"{_LINEAR}in_proj_ba", f"{BLOCK}ssm_ba", "2*v_heads hidden", when=is_linear),
            exact(f"{_LINEAR}A_log", f"{BLOCK}ssm_a", "v_heads", _decay, when=is_linear),
            exact(f"{_LINEAR}dt_bias", f"{BLOCK}ssm_dt.bias", "v_heads", when=is_linear),
            matrix(f"{_LINEAR}conv1d", f"{BLOCK}ssm_conv1d", "mixed 1 kernel", _squeeze, when=is_linear),
            _STATE,
            matrix(f"{_LINEAR}out_proj", f"{BLOCK}ssm_out", "hidden inner", when=is_linear),
            *_FULL_ATTENTION,
            *dense_mlp(),
            *experts(),
            *SHARED_EXPERT,
            *_PREDICTION,
        ),
        sizes=_SIZES,
        rename=_rename_predicted,
        block_count=lambda model: model.layers + _predicted(model),
        tokenizer=byte_level_bpe,
        pre_tokenizers=("qwen35", "qwen2"),
    ),
    _qwen35(("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"), "qwen35", sparse=False),
    _qwen35(("MiniCPMV4_6ForConditionalGeneration",), "qwen35", sparse=False, rename=_rename_without_predicted),
    _qwen35(("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"), "qwen35moe", sparse=True),
)
