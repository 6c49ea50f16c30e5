"""Granite 4 and Bamba: blocks of Mamba 2 among blocks with attention, each followed by experts or one gated part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelbuild.convert import config as names
from modelbuild.convert.common_keys import per_layer
from modelbuild.convert.config import Default
from modelbuild.convert.families.granite import GRANITE_DEFAULTS, GRANITE_KEYS
from modelbuild.convert.families.llama import same_heads
from modelbuild.convert.families.mamba import as_column, by_group, decay_column, group_count
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    embeddings,
    gated_mlp,
    halve_expert_rows,
    halve_rows,
    squeeze_middle,
)
from modelbuild.convert.family import Family, KeyRule, TensorRule, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.rope import llama3_frequencies, partial_factor
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.transforms import interleave_halves_of
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32

_MIXER, _ATTENTION = f"{LAYER}mamba.", f"{LAYER}self_attn."
#: Without rotation nothing limits the length of a text.
_CONTEXT_LENGTH = 1 << 20


def _attention_blocks(model: Model) -> Sequence[int]:
    """Blocks with attention: listed by kind, by number, or every so many."""
    config = model.config
    kinds = config.texts("layer_types")
    if kinds:
        if len(kinds) != model.layers:
            raise config.error("layer_types", f"{len(kinds)} entries for {model.layers} layers")
        return [number for number, kind in enumerate(kinds) if kind == "attention"]
    listed = config.integers("attn_layer_indices")
    if listed:
        return listed
    period = config.optional_integer("attn_layer_period")
    if not period:
        return []
    offset = config.integer("attn_layer_offset")
    return [number for number in range(model.layers) if number % period == offset]


def _attends(model: Model, block: int) -> bool:
    return block in _attention_blocks(model)


def _mixes(model: Model, block: int) -> bool:
    return not _attends(model, block)


def _is_hybrid(model: Model) -> bool:
    return any(_mixes(model, block) for block in range(model.layers))


def _architecture(model: Model) -> str:
    """Some of these models have attention in every block: they are plain Granite."""
    if _is_hybrid(model):
        return "granitehybrid"
    return "granitemoe" if model.config.optional_integer(names.EXPERT_USED_COUNT, "expert_count") else "granite"


def _inner(model: Model) -> int:
    return model.config.integer("mamba_expand", default=2) * model.hidden


def _state_heads(model: Model) -> int:
    return model.config.integer("mamba_n_heads", "head_count")


_groups = group_count("mamba_n_groups", _inner)


def _state(model: Model) -> int:
    return model.config.integer("mamba_d_state", "head_dimension")


def _kernel(model: Model) -> int:
    return model.config.integer("mamba_d_conv", "head_dimension")


def _rotation_keys(model: Model) -> Iterable[KeyValue]:
    """Whether heads are rotated: in Bamba, and where no block is a state space."""
    rotates = model.hf_class == "BambaForCausalLM" or not _is_hybrid(model)
    yield boolean(model.key("rope.scaling.finetuned"), rotates)
    if not rotates:
        yield u32(model.key("context_length"), _CONTEXT_LENGTH)


def _kv_heads(model: Model) -> list[int]:
    return [model.kv_heads if _attends(model, block) else 0 for block in range(model.layers)]


def _rotated(model: Model) -> int:
    """Dimensions of a head that are rotated: in Bamba half of them, unless it says how many."""
    given = model.config.optional_integer("attn_rotary_emb", "head_dimension")
    if model.hf_class == "BambaForCausalLM" and given is None:
        return int(model.head_dim * partial_factor(model, 0.5))
    return model.head_dim if given is None else given


def _permute(source: Source, model: Model, _block: int) -> Source:
    """Rotary halves to pairs; the rows tell the number of heads, which the header of a GGUF has by block.

    What is not rotated stays where it is. The reference moves it as well, so that other pairs are rotated.
    """
    return interleave_halves_of(source, source.shape[0] // model.head_dim, _rotated(model))


def _check(model: Model) -> None:
    if model.config.text("hidden_act", "silu") != "silu":
        raise model.config.error("hidden_act", "the runtime computes SiLU")
    if not _attention_blocks(model):
        hint = "one of layer_types, attn_layer_indices and attn_layer_period tells which blocks have attention"
        raise model.config.error("layer_types", "no block has attention", hint)


def _shared_width(model: Model) -> int | None:
    return model.config.optional_integer("shared_intermediate_size", "feed_forward_length")


def _dense_width(model: Model) -> int | None:
    return model.feed_forward if model.hf_class == "BambaForCausalLM" else _shared_width(model)


_KEYS: tuple[KeyRule, ...] = (
    *GRANITE_KEYS,
    # Without experts, what they would share is the feed-forward part, whatever its width is called.
    Value("feed_forward_length", lambda model: None if model.experts else _dense_width(model)),
    Value("expert_shared_feed_forward_length", lambda model: _shared_width(model) or None),
    Value("ssm.conv_kernel", _kernel),
    Value("ssm.state_size", _state),
    Value("ssm.group_count", _groups),
    Value("ssm.inner_size", _inner),
    Value("ssm.time_step_rank", _state_heads),
    Value("rope.dimension_count", _rotated),
    per_layer("attention.head_count_kv", _kv_heads),
    _rotation_keys,
)
_BLOCKS: tuple[TensorRule, ...] = (
    norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
    exact(f"{_MIXER}A_log", f"{BLOCK}ssm_a", "state_heads", decay_column, when=_mixes),
    exact(f"{_MIXER}D", f"{BLOCK}ssm_d", "state_heads", as_column, when=_mixes),
    exact(f"{_MIXER}conv1d.weight", f"{BLOCK}ssm_conv1d.weight", "channels 1 kernel", squeeze_middle, when=_mixes),
    exact(f"{_MIXER}conv1d.bias", f"{BLOCK}ssm_conv1d.bias", "channels", when=_mixes),
    exact(f"{_MIXER}dt_bias", f"{BLOCK}ssm_dt.bias", "state_heads", when=_mixes),
    matrix(f"{_MIXER}in_proj", f"{BLOCK}ssm_in", "inner+channels+state_heads hidden", when=_mixes),
    norm(f"{_MIXER}norm", f"{BLOCK}ssm_norm", "inner", by_group(_groups), when=_mixes),
    matrix(f"{_MIXER}out_proj", f"{BLOCK}ssm_out", "hidden inner", when=_mixes),
    matrix(f"{_ATTENTION}q_proj", f"{BLOCK}attn_q", "q hidden", _permute, when=_attends),
    matrix(f"{_ATTENTION}k_proj", f"{BLOCK}attn_k", "kv hidden", _permute, when=_attends),
    matrix(f"{_ATTENTION}v_proj", f"{BLOCK}attn_v", "kv hidden", when=_attends),
    matrix(f"{_ATTENTION}o_proj", f"{BLOCK}attn_output", "hidden q", when=_attends),
)
_SIZES = {
    "inner": _inner,
    "kernel": _kernel,
    "state_heads": _state_heads,
    "channels": lambda model: _inner(model) + 2 * _groups(model) * _state(model),
    "shared_ff": _shared_width,
}
_DEFAULTS: dict[str, Default] = {
    "mamba_n_heads": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}


def _has_experts(model: Model, _block: int) -> bool:
    return model.experts > 0


def _is_dense(model: Model, block: int) -> bool:
    return not _has_experts(model, block)


def _has_shared(model: Model, block: int) -> bool:
    return _has_experts(model, block) and bool(_shared_width(model))


def _rename(name: str, model: Model) -> str:
    """Without experts, what they would share is the feed-forward part."""
    return name if model.experts else name.replace(".shared_mlp.", ".dense_mlp.")


def _rename_bamba(name: str, _model: Model) -> str:
    name = name.replace("model.final_layernorm.", "model.norm.").replace(".feed_forward.", ".mlp.")
    return name.replace(".pre_ff_layernorm.", ".post_attention_layernorm.")


_MOE, _SHARED, _DENSE = f"{LAYER}block_sparse_moe.", f"{LAYER}shared_mlp.", f"{LAYER}dense_mlp."
_EXPERTS: tuple[TensorRule, ...] = (
    matrix(f"{_MOE}router.layer", f"{BLOCK}ffn_gate_inp", "experts hidden", when=_has_experts),
    matrix(
        f"{_MOE}input_linear",
        (f"{BLOCK}ffn_gate_exps", f"{BLOCK}ffn_up_exps"),
        "experts 2*ff hidden",
        halve_expert_rows,
        when=_has_experts,
    ),
    matrix(f"{_MOE}output_linear", f"{BLOCK}ffn_down_exps", "experts hidden ff", when=_has_experts),
    matrix(
        f"{_SHARED}input_linear",
        (f"{BLOCK}ffn_gate_shexp", f"{BLOCK}ffn_up_shexp"),
        "2*shared_ff hidden",
        halve_rows,
        when=_has_shared,
    ),
    matrix(f"{_SHARED}output_linear", f"{BLOCK}ffn_down_shexp", "hidden shared_ff", when=_has_shared),
    matrix(
        f"{_DENSE}input_linear",
        (f"{BLOCK}ffn_gate", f"{BLOCK}ffn_up"),
        "2*shared_ff hidden",
        halve_rows,
        when=_is_dense,
    ),
    matrix(f"{_DENSE}output_linear", f"{BLOCK}ffn_down", "hidden shared_ff", when=_is_dense),
)

FAMILIES = (
    Family(
        classes=("GraniteMoeHybridForCausalLM",),
        architecture=_architecture,
        defaults={
            **GRANITE_DEFAULTS,
            **_DEFAULTS,
            "num_key_value_heads": same_heads,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 1024,
        },
        keys=_KEYS,
        tensors=(
            *embeddings(),
            *_BLOCKS,
            norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm"),
            *_EXPERTS,
        ),
        rename=_rename,
        sizes=_SIZES,
        check=_check,
        extras=llama3_frequencies,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("dbrx",),
    ),
    Family(
        classes=("BambaForCausalLM",),
        architecture="granitehybrid",
        defaults={
            **_DEFAULTS,
            "num_key_value_heads": 8,
            "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-5,
        },
        keys=_KEYS,
        tensors=(
            *embeddings(),
            *_BLOCKS,
            norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm"),
            *gated_mlp(),
        ),
        rename=_rename_bamba,
        sizes=_SIZES,
        check=_check,
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("llama-bpe",),
    ),
)
