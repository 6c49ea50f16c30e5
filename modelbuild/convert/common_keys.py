"""The hyper-parameter keys that most text models share, in the reference's order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from modelbuild.convert import config as names
from modelbuild.convert.family import Count, KeyRule, Number
from modelbuild.convert.rope import rope_base_keys, rope_scaling_keys
from modelbuild.errors import printable
from modelbuild.formats.gguf.writer import KeyValue, bool_array, boolean, i32_array, u32

if TYPE_CHECKING:
    from modelbuild.convert.model import Model

_GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
_GATING_KEYS = (
    "score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
    "expert_selection_fn",
)  # fmt: skip


def block_count(model: Model) -> Iterable[KeyValue]:
    """Number of blocks."""
    yield u32(model.key("block_count"), model.block_count)


def head_counts(model: Model) -> Iterable[KeyValue]:
    """Query heads, and key and value heads where the configuration gives them."""
    for name, keys in (("attention.head_count", names.HEAD_COUNT), ("attention.head_count_kv", names.HEAD_COUNT_KV)):
        value = model.config.optional_integer(keys, "head_count")
        if value is not None:
            yield u32(model.key(name), value)


def feed_forward(model: Model) -> Iterable[KeyValue]:
    """Width of the feed-forward part: one number, or a list with one for each block."""
    key, value = model.config.find(names.FEED_FORWARD_LENGTH)
    if isinstance(value, list):
        widths = model.config.integers(key, "feed_forward_length") or []
        if len(widths) != model.layers:
            raise model.config.error(key, f"{len(widths)} entries for {model.layers} layers")
        yield i32_array(model.key("feed_forward_length"), widths)
    elif value is not None:
        yield u32(model.key("feed_forward_length"), model.config.integer(key, "feed_forward_length"))


def causal(model: Model) -> Iterable[KeyValue]:
    """Written only when attention looks both ways."""
    if not model.config.boolean("is_causal", True):
        yield boolean(model.key("attention.causal"), False)


def not_causal(model: Model) -> Iterable[KeyValue]:
    """Attention looks both ways."""
    yield boolean(model.key("attention.causal"), False)


def experts_used(model: Model) -> Iterable[KeyValue]:
    """How many experts a token gets, and from how many groups; nothing for a model without experts.

    Dense models sometimes carry these numbers over from a larger sibling, and the runtime ends when it meets them.
    """
    used = model.config.optional_integer(names.EXPERT_USED_COUNT, "expert_count")
    groups = model.config.optional_integer("n_group")
    groups_used = model.config.optional_integer("topk_group")
    if not model.experts:
        return
    if used is not None:
        yield u32(model.key("expert_used_count"), used)
    if groups is not None:
        yield u32(model.key("expert_group_count"), groups)
    if groups_used is not None:
        yield u32(model.key("expert_group_used_count"), groups_used)


def expert_gating(model: Model) -> Iterable[KeyValue]:
    """How experts are chosen; InputError CONFIG for a way nobody knows."""
    chosen = model.config.text(_GATING_KEYS)
    if chosen:
        if chosen not in _GATING:
            key = model.config.find(_GATING_KEYS)[0]
            raise model.config.error(key, f"unknown way to choose experts {printable(chosen)!r}")
        yield u32(model.key("expert_gating_func"), _GATING[chosen])


def head_lengths(model: Model) -> Iterable[KeyValue]:
    """Width of keys and values, where the configuration gives head_dim."""
    head_dim = model.config.optional_integer("head_dim", "head_dimension")
    if head_dim is not None:
        yield u32(model.key("attention.key_length"), head_dim)
        yield u32(model.key("attention.value_length"), head_dim)


def file_type(model: Model) -> Iterable[KeyValue]:
    """The type of most tensors."""
    yield u32("general.file_type", model.file_type)


CONTEXT = Count("context_length", names.CONTEXT_LENGTH, "context_length")
EMBEDDING = Count("embedding_length", names.EMBEDDING_LENGTH, "embedding_length")
FEED_FORWARD = feed_forward
RMS_EPSILON = Number("attention.layer_norm_rms_epsilon", names.RMS_EPSILON)
NORM_EPSILON = Number("attention.layer_norm_epsilon", names.NORM_EPSILON)
VOCAB_SIZE = Count("vocab_size", "vocab_size", "vocab_size")

COMMON_KEYS: tuple[KeyRule, ...] = (
    block_count,
    CONTEXT,
    EMBEDDING,
    FEED_FORWARD,
    head_counts,
    causal,
    rope_scaling_keys,
    rope_base_keys,
    RMS_EPSILON,
    NORM_EPSILON,
    Count("expert_count", names.EXPERT_COUNT, "expert_count"),
    experts_used,
    expert_gating,
    head_lengths,
    file_type,
)


def per_layer(name: str, values: Callable[[Model], Sequence[int] | None]) -> KeyRule:
    """An i32 array key of the architecture with one number for each block; None writes nothing."""

    def rule(model: Model) -> Iterable[KeyValue]:
        numbers = values(model)
        if numbers is not None:
            yield i32_array(model.key(name), numbers)

    return rule


def sliding_pattern(model: Model) -> list[bool] | None:
    """Which blocks see a window only, from the names of their types; None when the configuration has no such list."""
    types = model.config.texts("layer_types")
    if types is None:
        return None
    if len(types) != model.layers:
        raise model.config.error("layer_types", f"{len(types)} entries for {model.layers} layers")
    return [kind == "sliding_attention" for kind in types]


def sliding_pattern_keys(model: Model) -> Iterable[KeyValue]:
    """The same as a key."""
    pattern = sliding_pattern(model)
    if pattern is not None:
        yield bool_array(model.key("attention.sliding_window_pattern"), pattern)


SLIDING_WINDOW = Count("attention.sliding_window", "sliding_window")
EXPERT_FEED_FORWARD = Count("expert_feed_forward_length", "moe_intermediate_size", "feed_forward_length")
