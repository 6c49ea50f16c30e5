"""Step 3.5 and 3.7: windows with more heads in most blocks, gated heads, experts, blocks that predict a token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from modelbuild.convert.common_keys import COMMON_KEYS, EXPERT_FEED_FORWARD, per_layer
from modelbuild.convert.families.glm import NEXT_TOKEN_TENSORS
from modelbuild.convert.families.standard import BLOCK, LAYER, embeddings, head_norms, plus_one
from modelbuild.convert.family import Count, Extra, Family, KeyRule, Number, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.rope import llama3_factors, rope_base_keys
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import Reshaped
from modelbuild.convert.value_transforms import constant
from modelbuild.formats.gguf.writer import KeyValue, bool_array, f32, f32_array, u32

_A, _MOE, _SHARED = f"{LAYER}self_attn.", f"{LAYER}moe.", f"{LAYER}share_expert."
_WINDOW = "sliding_attention"
#: The share of a head that is rotated in blocks that see everything.
_SHARE = 0.5


def _predicted(model: Model) -> int:
    return model.config.integer("num_nextn_predict_layers", default=0)


def _kinds(model: Model) -> Sequence[str]:
    """What each block sees, those that predict further tokens too; everything where nothing is said."""
    kinds = (model.config.texts("layer_types") or [])[: model.block_count]
    return [*kinds, *["full_attention"] * (model.block_count - len(kinds))]


def _by_kind(model: Model, name: str) -> Sequence[int]:
    """A number of heads for each block: those with a window have one of their own."""
    usual = model.config.integer(name, "head_count")
    others = model.config.section("attention_other_setting")
    windowed = usual if others is None else others.integer(name, "head_count", usual)
    return [windowed if kind == _WINDOW else usual for kind in _kinds(model)]


def _heads(model: Model) -> Sequence[int]:
    return _by_kind(model, "num_attention_heads")


def _kv_heads(model: Model) -> Sequence[int]:
    return _by_kind(model, "num_attention_groups")


def _queries(model: Model, block: int) -> str:
    return f"{_heads(model)[block]}*head hidden"


def _keys_shape(model: Model, block: int) -> str:
    return f"{_kv_heads(model)[block]}*head hidden"


def _output(model: Model, block: int) -> str:
    return f"hidden {_heads(model)[block]}*head"


def _gates(model: Model, block: int) -> str:
    return f"{_heads(model)[block]} hidden"


def _sparse_blocks(model: Model) -> Sequence[int]:
    """Blocks with experts, listed as a text."""
    text = model.config.text("moe_layers_enum")
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not all(number.isdecimal() for number in numbers):
        raise model.config.error("moe_layers_enum", "numbers with commas between them are expected")
    return sorted(int(number[:6]) for number in numbers)


def _is_sparse(model: Model, block: int) -> bool:
    return block in _sparse_blocks(model)


def _is_dense(model: Model, block: int) -> bool:
    return not _is_sparse(model, block)


def _theta_keys(model: Model) -> Iterable[KeyValue]:
    """The bases of the frequencies; a list tells them block by block: everything first, then a window."""
    theta = model.config.numbers("rope_theta") if isinstance(model.config.get("rope_theta"), list) else None
    if theta is None:
        yield from rope_base_keys(model)
        return
    if len(theta) < 2:
        raise model.config.error("rope_theta", "at least two numbers are expected")
    yield f32(model.key("rope.freq_base"), theta[0])
    yield f32(model.key("rope.freq_base_swa"), theta[1])


def _frequencies(model: Model) -> Extra:
    """What frequencies are divided by in blocks that see everything; the others rotate more dimensions, as they are."""
    rope = model.rope.full
    if model.rope.kind != "llama3":
        return Extra()
    theta = model.config.get("rope_theta")
    base = (model.config.numbers("rope_theta") or [1e4])[0] if isinstance(theta, list) else model.rope.theta or 1e4
    factors = llama3_factors(
        base=base,
        dimensions=int(model.head_dim * _SHARE),
        factor=rope.number("factor", 8.0),
        low=rope.number("low_freq_factor", 1.0),
        high=rope.number("high_freq_factor", 4.0),
        original=rope.number("original_max_position_embeddings", 8192.0),
    )
    rest = model.head_dim // 2 - len(factors)
    return Extra((("rope_freqs.weight", constant([*factors, *[1.0] * rest])),))


def _limits(name: str, key: str) -> KeyRule:
    def rule(model: Model) -> Iterable[KeyValue]:
        found = model.config.get(key)
        if isinstance(found, list):
            limits = [
                0.0 if value is None else float(value) for value in found if isinstance(value, int | float | None)
            ]
            padded = [*limits, *[0.0] * model.block_count][: model.block_count]
            yield f32_array(model.key(name), padded)

    return rule


def _window_keys(model: Model) -> Iterable[KeyValue]:
    yield u32(model.key("attention.sliding_window"), model.config.integer("sliding_window"))
    yield bool_array(model.key("attention.sliding_window_pattern"), [kind == _WINDOW for kind in _kinds(model)])


def _squeezed(source: Source, _model: Model, _block: int) -> Source:
    """Without axes of one."""
    return Reshaped(source, tuple(size for size in source.shape if size != 1))


def _rename(name: str, model: Model) -> str:
    """The head that predicting blocks share, without the part it stands in."""
    parts = name.split(".", 3)
    if (
        len(parts) == 4
        and name.startswith("model.layers.")
        and parts[2].isdecimal()
        and int(parts[2][:6]) >= model.layers
    ):
        name = name.replace(".transformer.", ".").replace("shared_head.output", "shared_head.head")
    return name


_COMMON: tuple[KeyRule, ...] = tuple(_theta_keys if rule is rope_base_keys else rule for rule in COMMON_KEYS)
_NEXT = tuple(
    replace(rule, transform=plus_one) if rule.source.endswith("norm") else rule for rule in NEXT_TOKEN_TENSORS
)


FAMILY = Family(
    classes=("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration"),
    architecture="step35",
    keys=(
        *_COMMON,
        per_layer("attention.head_count", _heads),
        per_layer("attention.head_count_kv", _kv_heads),
        _window_keys,
        Value("attention.value_length", lambda model: model.head_dim),
        Count("expert_count", "moe_num_experts", "expert_count"),
        Count("expert_used_count", "moe_top_k", "expert_count"),
        EXPERT_FEED_FORWARD,
        Count("expert_shared_feed_forward_length", "share_expert_dim", "feed_forward_length"),
        Number("expert_weights_scale", "moe_router_scaling_factor"),
        Value(
            "expert_weights_norm",
            lambda model: (
                None
                if model.config.get("norm_expert_weight") is None
                else model.config.boolean("norm_expert_weight", True)
            ),
        ),
        Value("leading_dense_block_count", lambda model: next(iter(_sparse_blocks(model)), 0)),
        Count("moe_every_n_layers", "moe_every_n_layer", default=1),
        Number("attention.layer_norm_rms_epsilon", "rms_norm_eps", 1e-5),
        _limits("swiglu_clamp_exp", "swiglu_limits"),
        _limits("swiglu_clamp_shexp", "swiglu_limits_shared"),
        Value("nextn_predict_layers", lambda model: _predicted(model) or None),
    ),
    tensors=(
        *embeddings(norm_transform=plus_one),
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", transform=plus_one),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", transform=plus_one),
        matrix(f"{_A}q_proj", f"{BLOCK}attn_q", _queries),
        matrix(f"{_A}k_proj", f"{BLOCK}attn_k", _keys_shape),
        matrix(f"{_A}v_proj", f"{BLOCK}attn_v", _keys_shape),
        matrix(f"{_A}o_proj", f"{BLOCK}attn_output", _output),
        matrix(f"{_A}g_proj", f"{BLOCK}attn_gate", _gates),
        *head_norms(plus_one),
        matrix(f"{LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", "ff hidden", when=_is_dense),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden", when=_is_dense),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff", when=_is_dense),
        matrix(f"{_MOE}gate", f"{BLOCK}ffn_gate_inp", "sparse hidden", when=_is_sparse),
        exact(f"{_MOE}router_bias", f"{BLOCK}exp_probs_b.bias", "sparse", when=_is_sparse),
        matrix(f"{_MOE}gate_proj", f"{BLOCK}ffn_gate_exps", "sparse expert_ff hidden", _squeezed, when=_is_sparse),
        matrix(f"{_MOE}up_proj", f"{BLOCK}ffn_up_exps", "sparse expert_ff hidden", _squeezed, when=_is_sparse),
        matrix(f"{_MOE}down_proj", f"{BLOCK}ffn_down_exps", "sparse hidden expert_ff", _squeezed, when=_is_sparse),
        matrix(f"{_SHARED}gate_proj", f"{BLOCK}ffn_gate_shexp", "shared_ff hidden", when=_is_sparse),
        matrix(f"{_SHARED}up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
        matrix(f"{_SHARED}down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
        *_NEXT,
    ),
    sizes={
        "sparse": lambda model: model.config.integer("moe_num_experts", "expert_count", 0),
        "expert_ff": lambda model: model.config.optional_integer("moe_intermediate_size", "feed_forward_length"),
        "shared_ff": lambda model: model.config.optional_integer("share_expert_dim", "feed_forward_length"),
    },
    rename=_rename,
    block_count=lambda model: model.layers + _predicted(model),
    extras=_frequencies,
    tokenizer=byte_level_bpe,
    pre_tokenizers=("deepseek-v3",),
)
