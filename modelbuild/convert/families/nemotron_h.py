"""Nemotron-H: each block is one part, Mamba 2, attention, a feed-forward part or experts; also with sizes by block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelbuild.convert.common_keys import COMMON_KEYS, VOCAB_SIZE, head_lengths, per_layer
from modelbuild.convert.config import Config
from modelbuild.convert.families.mamba import as_column, by_group, decay_column, group_count
from modelbuild.convert.families.standard import BLOCK, permute_k, permute_q, squeeze_middle
from modelbuild.convert.family import Count, Family, KeyRule, Number, TensorRule, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.errors import printable
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32

_LAYER = "backbone.layers.{b}."
_MIXER = f"{_LAYER}mixer."
#: Nothing rotates, so that nothing limits the length of a text.
_CONTEXT_LENGTH = 1 << 20
_STATE, _ATTENTION, _FORWARD = "state", "attention", "forward"
#: What a block is, by its letter or its name.
_KINDS: Mapping[str, str] = {
    "M": _STATE, "mamba": _STATE, "linear_attention": _STATE, "*": _ATTENTION, "attention": _ATTENTION,
    "full_attention": _ATTENTION, "-": _FORWARD, "mlp": _FORWARD, "E": _FORWARD, "moe": _FORWARD,
}  # fmt: skip


# -- sizes -------------------------------------------------------------------------------------------------------------


def _kind(model: Model, block: int) -> str:
    """The kind of a block; empty behind the model's own, and where only the header of a GGUF is known."""
    found = _pattern(model)
    return _KINDS.get(found[block], "") if block < len(found) else ""


def _check(model: Model) -> None:
    """InputError CONFIG unless every block has a kind that is known."""
    found = _pattern(model)
    if len(found) != model.layers:
        raise model.config.error("hybrid_override_pattern", f"{len(found)} entries for {model.layers} layers")
    unknown = next((kind for kind in found if kind not in _KINDS), None)
    if unknown is not None:
        raise model.config.error("hybrid_override_pattern", f"unknown kind of block {printable(unknown)!r}")


def _pattern(model: Model) -> Sequence[str]:
    configs = model.config.get("block_configs")
    if isinstance(configs, list):
        return [str(item.get("block_type")) if isinstance(item, dict) else "" for item in configs]
    pattern = model.config.get("hybrid_override_pattern") or model.config.get("layers_block_type")
    return list(pattern) if isinstance(pattern, str) else model.config.texts("layers_block_type") or []


def is_predicting(model: Model, block: int) -> bool:
    """Is this the block that predicts a further token? It attends and has experts."""
    return block >= model.layers


def _has_state(model: Model, block: int) -> bool:
    return _kind(model, block) == _STATE


def _attends(model: Model, block: int) -> bool:
    return is_predicting(model, block) or _kind(model, block) == _ATTENTION


def _forwards(model: Model, block: int) -> bool:
    return is_predicting(model, block) or _kind(model, block) == _FORWARD


def has_experts(model: Model) -> bool:
    """Are the feed-forward parts experts?"""
    config = model.config
    described = config.has("num_experts_per_tok") or config.has("block_configs")
    return described or config.get("model_type") == "nemotron_h_moe"  # so the header of a GGUF says it


def _is_dense(model: Model, block: int) -> bool:
    return not has_experts(model) and _forwards(model, block)


def _is_sparse(model: Model, block: int) -> bool:
    return has_experts(model) and _forwards(model, block)


def _has_latent(model: Model, block: int) -> bool:
    return _is_sparse(model, block) and _latent(model) is not None


def _latent(model: Model) -> int | None:
    return model.config.optional_integer("moe_latent_size", "embedding_length")


def _head(model: Model) -> int:
    return model.config.integer(("head_dim", "attention_head_dim"), "head_dimension")


def _state_heads(model: Model) -> int:
    return model.config.integer("mamba_num_heads", "head_count")


def _inner(model: Model) -> int:
    return _state_heads(model) * model.config.integer("mamba_head_dim", "head_dimension")


_groups = group_count("n_groups", _inner)


def _state_size(model: Model) -> int:
    return model.config.integer("ssm_state_size", "head_dimension")


def _predicted(model: Model) -> int:
    """How many blocks predict further tokens: one, when it is there."""
    if not has_experts(model) or not model.config.optional_integer("num_nextn_predict_layers"):
        return 0
    return int(any(name.startswith(f"backbone.layers.{model.layers}.") for name in model.stored) or not model.stored)


def _widths(model: Model) -> list[int]:
    """Feed-forward widths, zero for other kinds of blocks."""
    configs = model.config.get("block_configs")
    if isinstance(configs, list):
        return _by_config(model, configs, "moe_intermediate_size")
    key = "moe_intermediate_size" if has_experts(model) else "intermediate_size"
    width = model.config.integer(key, "feed_forward_length")
    return [width if _forwards(model, block) else 0 for block in range(model.block_count)]


def _by_config(model: Model, configs: Sequence[object], key: str) -> list[int]:
    numbers = [item.get(key) or 0 if isinstance(item, dict) else 0 for item in configs]
    if not all(type(number) is int and 0 <= number <= 1 << 24 for number in numbers):
        raise model.config.error("block_configs", f"{key} is no list of widths")
    return numbers


def _expert_width(model: Model, block: int) -> int:
    return _widths(model)[block]


def _kv_heads(model: Model) -> list[int]:
    return [model.kv_heads if _attends(model, block) else 0 for block in range(model.block_count)]


# -- keys --------------------------------------------------------------------------------------------------------------


def _not_rotated(model: Model) -> Iterable[KeyValue]:
    yield boolean(model.key("rope.scaling.finetuned"), False)
    yield u32(model.key("context_length"), _CONTEXT_LENGTH)


def _expert_keys(model: Model) -> Iterable[KeyValue]:
    if not has_experts(model):
        return
    puzzle = model.config.has("block_configs")
    uniform = (
        Count("expert_used_count", "num_experts_per_tok", "expert_count"),
        Count("expert_feed_forward_length", "moe_intermediate_size", "feed_forward_length"),
    )
    by_block = (
        per_layer("expert_feed_forward_length", _widths),
        per_layer("expert_used_count", lambda model: _by_config(model, _configs(model), "num_experts_per_tok")),
    )
    common: tuple[KeyRule, ...] = (
        Count("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size", "feed_forward_length"),
        Count("expert_count", "n_routed_experts", "expert_count"),
        Count("expert_shared_count", "n_shared_experts", "expert_count"),
        Value("expert_weights_norm", lambda model: model.config.boolean("norm_topk_prob", False)),
        Number("expert_weights_scale", "routed_scaling_factor"),
        Count("expert_group_count", "n_group", "expert_count"),
        Count("moe_latent_size", "moe_latent_size", "embedding_length"),
        Value("nextn_predict_layers", lambda model: _predicted(model) or None),
    )
    for rule in (*(by_block if puzzle else uniform), *common):
        yield from rule(model)


def _configs(model: Model) -> Sequence[object]:
    configs = model.config.get("block_configs")
    return configs if isinstance(configs, list) else []


# -- names -------------------------------------------------------------------------------------------------------------

_PREDICTED_NAMES = {
    "mtp.layers.0.enorm.weight": "enorm.weight",
    "mtp.layers.0.hnorm.weight": "hnorm.weight",
    "mtp.layers.0.eh_proj.weight": "eh_proj.weight",
    "mtp.layers.1.norm.weight": "post_norm.weight",
    "mtp.layers.1.final_layernorm.weight": "final_layernorm.weight",
}


def _rename(name: str, model: Model) -> str:
    """Both prefixes of the releases; the two layers that predict a token are one block behind those of the model."""
    if name.startswith("mtp."):
        if model.config.has("block_configs") or not model.config.optional_integer("num_nextn_predict_layers"):
            return ""
        rest = _PREDICTED_NAMES.get(name) or name.split(".", 3)[-1]
        return f"backbone.layers.{model.layers}.{rest}"
    return f"backbone.{name.removeprefix('model.')}" if name.startswith("model.") else name


def _block_count(config: Config) -> object:
    """As many blocks as are described, where the number is left out."""
    described = config.get("block_configs") or config.get("layers_block_type") or config.get("hybrid_override_pattern")
    return len(described) if isinstance(described, list | str) else None


# -- tables ------------------------------------------------------------------------------------------------------------

_COMMON: tuple[KeyRule, ...] = tuple(rule for rule in COMMON_KEYS if rule is not head_lengths)
_EXPERT = f"{_MIXER}experts.{{e}}."
_TENSORS: tuple[TensorRule, ...] = (
    matrix("backbone.embeddings", "token_embd", "? hidden"),
    norm("backbone.norm_f", "output_norm"),
    matrix("lm_head", "output", "vocab hidden", weight="optional"),
    norm(f"{_LAYER}norm", f"{BLOCK}attn_norm"),
    exact(f"{_MIXER}A_log", f"{BLOCK}ssm_a", "state_heads", decay_column, when=_has_state),
    exact(f"{_MIXER}D", f"{BLOCK}ssm_d", "state_heads", as_column, when=_has_state),
    exact(f"{_MIXER}conv1d.weight", f"{BLOCK}ssm_conv1d.weight", "channels 1 kernel", squeeze_middle, when=_has_state),
    exact(f"{_MIXER}conv1d.bias", f"{BLOCK}ssm_conv1d.bias", "channels", when=_has_state),
    exact(f"{_MIXER}dt_bias", f"{BLOCK}ssm_dt.bias", "state_heads", when=_has_state),
    matrix(f"{_MIXER}in_proj", f"{BLOCK}ssm_in", "inner+channels+state_heads hidden", when=_has_state),
    norm(f"{_MIXER}norm", f"{BLOCK}ssm_norm", "inner", by_group(_groups), when=_has_state),
    matrix(f"{_MIXER}out_proj", f"{BLOCK}ssm_out", "hidden inner", when=_has_state),
    matrix(f"{_MIXER}q_proj", f"{BLOCK}attn_q", "heads*wide hidden", permute_q, bias="optional", when=_attends),
    matrix(f"{_MIXER}k_proj", f"{BLOCK}attn_k", "kv_heads*wide hidden", permute_k, bias="optional", when=_attends),
    matrix(f"{_MIXER}v_proj", f"{BLOCK}attn_v", "kv_heads*wide hidden", bias="optional", when=_attends),
    matrix(f"{_MIXER}o_proj", f"{BLOCK}attn_output", "hidden heads*wide", bias="optional", when=_attends),
    matrix(f"{_MIXER}up_proj", f"{BLOCK}ffn_up", "ff hidden", bias="optional", when=_is_dense),
    matrix(f"{_MIXER}down_proj", f"{BLOCK}ffn_down", "hidden ff", bias="optional", when=_is_dense),
    matrix(f"{_MIXER}gate", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_is_sparse),
    exact(f"{_MIXER}gate.e_score_correction.bias", f"{BLOCK}exp_probs_b.bias", "experts", when=_is_sparse),
    matrix(f"{_MIXER}fc1_latent_proj", f"{BLOCK}ffn_latent_down", "narrow hidden", when=_has_latent),
    matrix(f"{_MIXER}fc2_latent_proj", f"{BLOCK}ffn_latent_up", "hidden narrow", when=_has_latent),
    matrix(
        f"{_EXPERT}down_proj",
        f"{BLOCK}ffn_down_exps",
        lambda model, block: f"narrow {_expert_width(model, block)}",
        when=_is_sparse,
    ),
    matrix(
        f"{_EXPERT}up_proj",
        f"{BLOCK}ffn_up_exps",
        lambda model, block: f"{_expert_width(model, block)} narrow",
        when=_is_sparse,
    ),
    matrix(f"{_MIXER}shared_experts.down_proj", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_is_sparse),
    matrix(f"{_MIXER}shared_experts.up_proj", f"{BLOCK}ffn_up_shexp", "shared_ff hidden", when=_is_sparse),
    matrix(f"{_LAYER}eh_proj", f"{BLOCK}nextn.eh_proj", "hidden 2*hidden", when=is_predicting),
    norm(f"{_LAYER}enorm", f"{BLOCK}nextn.enorm", when=is_predicting),
    norm(f"{_LAYER}hnorm", f"{BLOCK}nextn.hnorm", when=is_predicting),
    norm(f"{_LAYER}post_norm", f"{BLOCK}post_attention_norm", when=is_predicting),
    norm(f"{_LAYER}final_layernorm", f"{BLOCK}nextn.shared_head_norm", when=is_predicting),
)

FAMILY = Family(
    classes=("NemotronHForCausalLM", "NemotronHPuzzleForCausalLM"),
    architecture=lambda model: "nemotron_h_moe" if has_experts(model) else "nemotron_h",
    defaults={"num_hidden_layers": _block_count},
    keys=(
        *_COMMON,
        VOCAB_SIZE,
        Value("rope.dimension_count", lambda model: model.hidden // model.heads),
        Count("ssm.conv_kernel", "conv_kernel"),
        Value("ssm.state_size", _state_size),
        Value("ssm.group_count", _groups),
        Value("ssm.inner_size", _inner),
        Value("ssm.time_step_rank", _state_heads),
        Count("rope.dimension_count", "attn_rotary_emb"),
        per_layer("attention.head_count_kv", _kv_heads),
        _not_rotated,
        Value("attention.key_length", _head),
        Value("attention.value_length", _head),
        per_layer("feed_forward_length", _widths),
        _expert_keys,
    ),
    tensors=_TENSORS,
    sizes={
        "wide": _head,
        "inner": _inner,
        "kernel": lambda model: model.config.integer("conv_kernel"),
        "state_heads": _state_heads,
        "channels": lambda model: _inner(model) + 2 * _groups(model) * _state_size(model),
        "narrow": lambda model: _latent(model) or model.hidden,
        "shared_ff": lambda model: model.config.optional_integer(
            "moe_shared_expert_intermediate_size", "feed_forward_length"
        ),
    },
    rename=_rename,
    check=_check,
    block_count=lambda model: model.layers + _predicted(model),
    tokenizer=byte_level_bpe,
    pre_tokenizers=("llama-bpe",),
)
