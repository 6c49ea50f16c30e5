"""SmallThinker: experts that are chosen before attention, windows in some blocks."""

from __future__ import annotations

from collections.abc import Iterable

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import COMMON_KEYS
from modelbuild.convert.families.standard import BLOCK, LAYER, attention, block_norms, embeddings
from modelbuild.convert.family import Count, Family, TensorRule, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.formats.gguf.writer import KeyValue, u32

_MLP = f"{LAYER}block_sparse_moe."
_SOFTMAX, _SIGMOID = 1, 2


def _experts(model: Model) -> int:
    return model.config.integer(("moe_num_primary_experts", *names.EXPERT_COUNT), "expert_count", 0)


def _gating(model: Model) -> Iterable[KeyValue]:
    softmax = model.config.boolean("moe_primary_router_apply_softmax", False)
    yield u32(model.key("expert_gating_func"), _SOFTMAX if softmax else _SIGMOID)


def _window(model: Model) -> Iterable[KeyValue]:
    """The window, when a block has one."""
    window = model.config.optional_integer("sliding_window_size")
    if window and any(model.config.integers("sliding_window_layout") or []):
        yield u32(model.key("attention.sliding_window"), window)


FAMILY = Family(
    classes=("SmallThinkerForCausalLM",),
    architecture="smallthinker",
    keys=(
        *COMMON_KEYS,
        Count("expert_count", "moe_num_primary_experts", "expert_count"),
        Count("expert_used_count", "moe_num_active_primary_experts", "expert_count"),
        Count("expert_feed_forward_length", "moe_ffn_hidden_size", "feed_forward_length"),
        Count("feed_forward_length", "moe_ffn_hidden_size", "feed_forward_length"),
        _gating,
        _window,
    ),
    tensors=(
        *embeddings(),
        *block_norms(),
        *attention(),
        matrix(f"{_MLP}primary_router", f"{BLOCK}ffn_gate_inp", "experts hidden"),
        TensorRule(f"{_MLP}experts.{{e}}.down", f"{BLOCK}ffn_down_exps", "hidden expert_ff", count=_experts),
        TensorRule(f"{_MLP}experts.{{e}}.gate", f"{BLOCK}ffn_gate_exps", "expert_ff hidden", count=_experts),
        TensorRule(f"{_MLP}experts.{{e}}.up", f"{BLOCK}ffn_up_exps", "expert_ff hidden", count=_experts),
    ),
    sizes={
        "experts": _experts,
        "expert_ff": lambda model: model.config.optional_integer("moe_ffn_hidden_size", "feed_forward_length"),
    },
    tokenizer=byte_level_bpe,
    pre_tokenizers=("qwen2",),
)
