"""Command with experts (Cohere 2 MoE): one norm before attention and experts, which run side by side."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import COMMON_KEYS, SLIDING_WINDOW, VOCAB_SIZE, sliding_pattern_keys
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS, predicted_layers
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, embeddings
from modelbuild.convert.family import Family, Number, Value, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, u32

_MLP = f"{LAYER}mlp."


def _first_experts(model: Model) -> int:
    """Blocks with one feed-forward part for all tokens come first."""
    kinds = model.config.texts("mlp_layer_types")
    if kinds is None:
        return model.config.integer("first_k_dense_replace", default=0)
    return next((number for number, kind in enumerate(kinds) if kind != "dense"), len(kinds))


def _is_dense(model: Model, block: int) -> bool:
    return block < _first_experts(model)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _shared_experts(model: Model) -> int:
    return model.config.integer("num_shared_experts", "expert_count", 0)


def _has_shared(model: Model, block: int) -> bool:
    return _is_sparse(model, block) and _shared_experts(model) > 0


def _expert_width(model: Model) -> int:
    return model.config.integer("intermediate_size", "feed_forward_length")


def _dense_width(model: Model) -> int:
    return model.config.integer(names.FEED_FORWARD_LENGTH, "feed_forward_length")


def _expert_keys(model: Model) -> Iterable[KeyValue]:
    shared = _shared_experts(model)
    if shared:
        yield u32(model.key("expert_shared_count"), shared)
        yield u32(model.key("expert_shared_feed_forward_length"), shared * _expert_width(model))
    if predicted_layers(model):
        yield u32(model.key("nextn_predict_layers"), predicted_layers(model))


def _check(model: Model) -> None:
    how = model.config.text("shared_expert_combination_strategy", "average")
    if _shared_experts(model) and how != "average":
        raise model.config.error("shared_expert_combination_strategy", "the runtime averages shared experts only")


FAMILY = Family(
    classes=("Cohere2MoeForCausalLM",),
    architecture="cohere2moe",
    defaults={
        "num_key_value_heads": same_heads,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
    },
    keys=(
        *COMMON_KEYS,
        Number("logit_scale", "logit_scale"),
        SLIDING_WINDOW,
        sliding_pattern_keys,
        VOCAB_SIZE,
        Value("expert_feed_forward_length", _expert_width),
        Value("leading_dense_block_count", _first_experts),
        Value("expert_weights_norm", lambda model: model.config.boolean("norm_topk_prob", False)),
        _expert_keys,
        Value("rope.dimension_count", lambda model: model.head_dim),
        Value("rope.scaling.type", "none"),
    ),
    tensors=(
        *embeddings(output="optional"),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
        *attention(),
        matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "dense_ff hidden", when=_is_dense),
        matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "dense_ff hidden", when=_is_dense),
        matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden dense_ff", when=_is_dense),
        matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
        matrix(f"{_MLP}experts.{{e}}.down_proj", f"{BLOCK}ffn_down_exps", "hidden expert_ff", when=_is_sparse),
        matrix(f"{_MLP}experts.{{e}}.gate_proj", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", when=_is_sparse),
        matrix(f"{_MLP}experts.{{e}}.up_proj", f"{BLOCK}ffn_up_exps", "expert_ff hidden", when=_is_sparse),
        matrix(f"{_MLP}shared_experts.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_has_shared),
        matrix(f"{_MLP}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_has_shared),
        matrix(f"{_MLP}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_has_shared),
        *NEXT_TOKEN_TENSORS,
    ),
    check=_check,
    sizes={
        "expert_ff": _expert_width,
        "dense_ff": _dense_width,
        "shared_ff": lambda model: _expert_width(model) * _shared_experts(model),
    },
    block_count=lambda model: model.layers + predicted_layers(model),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("command-r", "cohere2"),
)
