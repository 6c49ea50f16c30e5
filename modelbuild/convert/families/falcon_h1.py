"""Falcon-H1: Mamba 2 and attention side by side in every block; numbers of the configuration go into the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelbuild.convert.common_keys import EMBEDDING, VOCAB_SIZE, block_count, file_type
from modelbuild.convert.families.llama import even_head_dim
from modelbuild.convert.families.mamba import as_column, by_group, decay_column, group_count
from modelbuild.convert.families.standard import (
    BLOCK,
    LAYER,
    multiplied,
    refuse_without_configuration,
    squeeze_middle,
)
from modelbuild.convert.family import Count, Family, Number, TensorRule, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.bpe import byte_level_bpe
from modelbuild.convert.transforms import concatenate, take_rows
from modelbuild.convert.value_transforms import Computed

_MIXER, _ATTENTION, _FORWARD = f"{LAYER}mamba.", f"{LAYER}self_attn.", f"{LAYER}feed_forward."


def _inner(model: Model) -> int:
    return model.config.integer("mamba_d_ssm", "embedding_length")


def _head_width(model: Model) -> int:
    return model.config.integer("mamba_d_head", "head_dimension", _inner(model) // _state_heads(model))


def _state_heads(model: Model) -> int:
    return model.config.integer("mamba_n_heads", "head_count")


_groups = group_count("mamba_n_groups", _inner)


def _state(model: Model) -> int:
    return model.config.integer("mamba_d_state", "head_dimension")


# -- multipliers -------------------------------------------------------------------------------------------------------


def _listed(model: Model, key: str, count: int) -> Sequence[float]:
    numbers = model.config.numbers(key)
    if numbers is None:
        return [1.0] * count
    if len(numbers) != count:
        raise model.config.error(key, f"{count} numbers expected, found {len(numbers)}")
    return numbers


def _single(key: str) -> Callable[[Model], float]:
    return lambda model: model.config.number(key, 1.0, positive=False)


def _mixer_input(source: Source, model: Model, _block: int) -> Source:
    """Gate, input, the two state matrices and the time steps, each with a multiplier of its own."""
    refuse_without_configuration(model)
    inner, state = _inner(model), _groups(model) * _state(model)
    bounds = (0, inner, 2 * inner, 2 * inner + state, 2 * inner + 2 * state, source.shape[0])
    common = _single("ssm_in_multiplier")(model)
    parts = tuple(
        Computed(Computed(take_rows(source, bounds[number], bounds[number + 1]), factor=common), factor=own)
        for number, own in enumerate(_listed(model, "ssm_multipliers", len(bounds) - 1))
    )
    return concatenate(parts)


_INTO = _single("attention_in_multiplier")
_BLOCKS: tuple[TensorRule, ...] = (
    norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm"),
    exact(f"{LAYER}pre_ff_layernorm.weight", f"{BLOCK}ffn_norm", "hidden"),  # the runtime knows it by this name
    matrix(f"{_ATTENTION}q_proj", f"{BLOCK}attn_q", "q hidden", multiplied(_INTO)),
    matrix(f"{_ATTENTION}k_proj", f"{BLOCK}attn_k", "kv hidden", multiplied(_single("key_multiplier"), _INTO)),
    matrix(f"{_ATTENTION}v_proj", f"{BLOCK}attn_v", "kv hidden", multiplied(_INTO)),
    matrix(f"{_ATTENTION}o_proj", f"{BLOCK}attn_output", "hidden q", multiplied(_single("attention_out_multiplier"))),
    exact(f"{_MIXER}A_log", f"{BLOCK}ssm_a", "state_heads", decay_column),
    exact(f"{_MIXER}D", f"{BLOCK}ssm_d", "state_heads", as_column),
    exact(f"{_MIXER}conv1d.weight", f"{BLOCK}ssm_conv1d.weight", "channels 1 kernel", squeeze_middle),
    exact(f"{_MIXER}conv1d.bias", f"{BLOCK}ssm_conv1d.bias", "channels"),
    exact(f"{_MIXER}dt_bias", f"{BLOCK}ssm_dt.bias", "state_heads"),
    matrix(f"{_MIXER}in_proj", f"{BLOCK}ssm_in", "inner+channels+state_heads hidden", _mixer_input),
    norm(f"{_MIXER}norm", f"{BLOCK}ssm_norm", "inner", by_group(_groups), weight="optional"),
    matrix(f"{_MIXER}out_proj", f"{BLOCK}ssm_out", "hidden inner", multiplied(_single("ssm_out_multiplier"))),
    matrix(
        f"{_FORWARD}gate_proj",
        f"{BLOCK}ffn_gate",
        "ff hidden",
        multiplied(lambda model: _listed(model, "mlp_multipliers", 2)[0]),
    ),
    matrix(f"{_FORWARD}up_proj", f"{BLOCK}ffn_up", "ff hidden"),
    matrix(
        f"{_FORWARD}down_proj",
        f"{BLOCK}ffn_down",
        "hidden ff",
        multiplied(lambda model: _listed(model, "mlp_multipliers", 2)[1]),
    ),
)

FAMILY = Family(
    classes=("FalconH1ForCausalLM",),
    architecture="falcon-h1",
    defaults={
        "num_key_value_heads": 8,
        "head_dim": even_head_dim,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "mamba_d_ssm": 1024,
        "mamba_n_heads": 128,
        "mamba_n_groups": 1,
        "mamba_d_state": 256,
        "mamba_d_conv": 4,
    },
    keys=(
        Count("context_length", "max_position_embeddings", "context_length"),
        EMBEDDING,
        Count("feed_forward_length", "intermediate_size", "feed_forward_length"),
        Value("attention.head_count", lambda model: model.heads),
        block_count,
        Value("ssm.conv_kernel", lambda model: model.config.integer("mamba_d_conv", "head_dimension")),
        Value("ssm.inner_size", _inner),
        Value("ssm.state_size", _state),
        Value("ssm.time_step_rank", lambda model: _inner(model) // _head_width(model)),
        Value("ssm.group_count", _groups),
        Number("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        file_type,
        VOCAB_SIZE,
        Value("attention.head_count_kv", lambda model: model.kv_heads),
        Value("attention.key_length", lambda model: model.head_dim),
        Value("attention.value_length", lambda model: model.head_dim),
        Value("rope.freq_base", lambda model: model.rope.theta),
    ),
    tensors=(
        matrix("model.embed_tokens", "token_embd", "? hidden", multiplied(_single("embedding_multiplier"))),
        norm("model.final_layernorm", "output_norm"),
        matrix("lm_head", "output", "vocab hidden", multiplied(_single("lm_head_multiplier")), weight="optional"),
        *_BLOCKS,
    ),
    sizes={
        "inner": _inner,
        "kernel": lambda model: model.config.integer("mamba_d_conv", "head_dimension"),
        "state_heads": _state_heads,
        "channels": lambda model: _inner(model) + 2 * _groups(model) * _state(model),
    },
    tokenizer=byte_level_bpe,
    pre_tokenizers=("falcon-h1",),
)
