"""Maple, Spark 2.5 and Laguna: windows in most blocks, which rotate heads in their own way, and gated attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelbuild.convert.common_keys import (
    COMMON_KEYS,
    EXPERT_FEED_FORWARD,
    VOCAB_SIZE,
    per_layer,
    sliding_pattern_keys,
)
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    attention,
    block_norms,
    embeddings,
    gated_mlp,
    head_norms,
)
from modelbuild.convert.family import Count, Family, Number, TensorRule, Value, exact, matrix
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.tokenizers.special import special_id_key
from modelbuild.formats.gguf.writer import KeyValue, f32_array, i32_array, string, u32

_A, _MLP = f"{LAYER}self_attn.", f"{LAYER}mlp."
_WINDOW = Count("attention.sliding_window", "sliding_window")


def _require(model: Model, **wanted: object) -> None:
    """InputError CONFIG for a setting that the runtime does not know about."""
    for key, value in wanted.items():
        if model.config.get(key) != value:
            raise model.config.error(key, f"{value!r} is expected, found {model.config.get(key)!r}")


def _rotated_keys(model: Model) -> Iterable[KeyValue]:
    """Dimensions of a head that are rotated in blocks that see everything, and in those with a window."""
    share = model.rope.full.number("partial_rotary_factor", 1.0)
    yield u32(model.key("rope.dimension_count"), int(model.head_dim * share))
    if model.rope.sliding is not None:
        share = model.rope.sliding.number("partial_rotary_factor", 1.0)
        yield u32(model.key("rope.dimension_count_swa"), int(model.head_dim * share))


# -- Maple -------------------------------------------------------------------------------------------------------------

#: Gate and up of experts are limited to this, whatever the configuration says.
_LIMIT = 7.0


def _check_maple(model: Model) -> None:
    _require(model, hidden_act="silu", nope_on_global_attention=True)
    if model.config.get("num_shared_experts") or not model.config.boolean("norm_topk_prob", True):
        raise model.config.error("num_shared_experts", "the runtime knows no shared experts, and weights that sum to 1")


def _limits(model: Model) -> Iterable[KeyValue]:
    yield f32_array(model.key("swiglu_clamp_exp"), [_LIMIT] * model.layers)


# -- Spark 2.5 ---------------------------------------------------------------------------------------------------------


def _check_spark(model: Model) -> None:
    _require(model, gate_attn_act_mode="sigmoid", headwise_attn_output_gate=True, hidden_act="gelu")


# -- Laguna ------------------------------------------------------------------------------------------------------------


def _heads(model: Model) -> Sequence[int]:
    heads = model.config.integers("num_attention_heads_per_layer", "head_count")
    if heads and len(heads) != model.layers:
        raise model.config.error("num_attention_heads_per_layer", f"{len(heads)} entries for {model.layers} layers")
    return heads or [model.heads] * model.layers


def _query_shape(model: Model, block: int) -> str:
    return f"{_heads(model)[block]}*head hidden"


def _output_shape(model: Model, block: int) -> str:
    return f"hidden {_heads(model)[block]}*head"


def _gate_shape(model: Model, block: int) -> str:
    """One gate for each head, or for each element of each head."""
    kinds = model.config.texts("gating_types")
    kind = kinds[block] if kinds and block < len(kinds) else model.config.get("gating")
    per_element = isinstance(kind, str) and kind.replace("-", "_") == "per_element"
    return f"{_heads(model)[block]}{'*head' if per_element else ''} hidden"


def _dense_blocks(model: Model) -> int:
    """Blocks without experts, all of them at the beginning."""
    kinds = model.config.texts("mlp_layer_types")
    if kinds is None:  # the base of an adapter, of which only a GGUF is there
        return model.config.integer("first_k_dense_replace", "block_count", 0)
    return next((number for number, kind in enumerate(kinds) if kind != "dense"), len(kinds))


def _is_dense(model: Model, block: int) -> bool:
    return block < _dense_blocks(model)


def _is_sparse(model: Model, block: int) -> bool:
    return not _is_dense(model, block)


def _laguna_window(model: Model) -> int | None:
    return model.config.integer("sliding_window", default=0) or None


def _laguna_tokenizer(model: Model) -> Iterable[KeyValue]:
    """The end of an answer ends the text; it has to be a control token for that, which its file does not say."""
    keys = {item.key: item for item in byte_level_bpe(model)}
    texts, types = (keys[f"tokenizer.ggml.{name}"].value.decode() for name in ("tokens", "token_type"))
    assert isinstance(texts, list), "texts of the tokens"
    assert isinstance(types, list), "types of the tokens"
    pairs = zip(texts, types, strict=True)
    changed = [_CONTROL if text == "</assistant>" else kind for text, kind in pairs if isinstance(kind, int)]
    keys["tokenizer.ggml.token_type"] = i32_array("tokenizer.ggml.token_type", changed)
    yield from keys.values()
    if model.checkpoint.has("chat_template.jinja"):  # the other place may only refer to it
        yield string("tokenizer.chat_template", model.checkpoint.read_text("chat_template.jinja"))
    ends, first = model.config.get("eos_token_id"), model.config.get("bos_token_id")
    others = [number for number in ends if type(number) is int and number != first] if isinstance(ends, list) else []
    if others:
        yield u32(special_id_key("eot"), others[0])


_CONTROL = 3


def _experts(*order: str) -> tuple[TensorRule, ...]:
    parts = {"gate": "expert_ff hidden", "up": "expert_ff hidden", "down": "hidden expert_ff"}
    return tuple(
        matrix(f"{_MLP}experts.{{e}}.{part}_proj", f"{BLOCK}ffn_{part}_exps", parts[part], when=_is_sparse)
        for part in order
    )


def _expert_width(model: Model) -> int | None:
    return model.config.optional_integer("moe_intermediate_size", "feed_forward_length")


FAMILIES = (
    Family(
        classes=("MapleForCausalLM",),
        architecture="maple",
        keys=(
            *COMMON_KEYS,
            VOCAB_SIZE,
            Value(
                "rope.dimension_count",
                lambda model: int(model.head_dim * model.rope.full.number("partial_rotary_factor", 1.0)),
            ),
            _WINDOW,
            sliding_pattern_keys,
            EXPERT_FEED_FORWARD,
            _limits,
        ),
        tensors=(
            *embeddings(),
            *block_norms(),
            *attention(),
            *head_norms(),
            matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden"),
            *_experts("down", "gate", "up"),
        ),
        sizes={"expert_ff": _expert_width},
        check=_check_maple,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("qwen2",),
    ),
    Family(
        classes=("Spark2_5ForCausalLM",),
        architecture="spark2_5",
        keys=(*COMMON_KEYS, VOCAB_SIZE, _WINDOW, sliding_pattern_keys, _rotated_keys),
        tensors=(
            *embeddings(),
            *block_norms(),
            matrix(f"{_A}q_k_v_proj", f"{BLOCK}attn_qkv", "q+2*kv hidden"),
            matrix(f"{_A}g_proj", f"{BLOCK}attn_gate", "heads hidden"),
            matrix(f"{_A}o_proj", f"{BLOCK}attn_output", "hidden q"),
            *gated_mlp(),
        ),
        check=_check_spark,
        tokenizer=byte_level_bpe,
        pre_tokenizers=("spark2_5",),
    ),
    Family(
        classes=("LagunaForCausalLM",),
        architecture="laguna",
        keys=(
            *COMMON_KEYS,
            VOCAB_SIZE,
            per_layer("attention.head_count", _heads),
            Value("attention.sliding_window", _laguna_window),
            EXPERT_FEED_FORWARD,
            Count("expert_shared_feed_forward_length", "shared_expert_intermediate_size", "feed_forward_length"),
            Value("expert_weights_norm", True),
            Number("expert_weights_scale", "moe_routed_scaling_factor"),
            Value("expert_gating_func", 2),
            Value("leading_dense_block_count", _dense_blocks),
            _rotated_keys,
        ),
        tensors=(
            *embeddings(),
            *block_norms(),
            matrix(f"{_A}q_proj", f"{BLOCK}attn_q", _query_shape),
            matrix(f"{_A}k_proj", f"{BLOCK}attn_k", "kv hidden"),
            matrix(f"{_A}v_proj", f"{BLOCK}attn_v", "kv hidden"),
            matrix(f"{_A}o_proj", f"{BLOCK}attn_output", _output_shape),
            matrix(f"{_A}g_proj", f"{BLOCK}attn_gate", _gate_shape),
            *head_norms(),
            matrix(f"{_MLP}gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
            matrix(f"{_MLP}up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
            matrix(f"{_MLP}down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
            matrix(f"{_MLP}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
            exact(f"{_MLP}experts.e_score_correction.bias", f"{BLOCK}exp_probs_b.bias", "experts", when=_is_sparse),
            *_experts("gate", "up", "down"),
            matrix(f"{_MLP}shared_expert.gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_is_sparse),
            matrix(f"{_MLP}shared_expert.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
            matrix(f"{_MLP}shared_expert.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
        ),
        sizes={
            "expert_ff": _expert_width,
            "shared_ff": lambda model: model.config.optional_integer(
                "shared_expert_intermediate_size", "feed_forward_length"
            ),
        },
        tokenizer=_laguna_tokenizer,
        pre_tokenizers=("laguna",),
    ),
)
