"""Mamba, Falcon-Mamba and Mamba 2: state spaces instead of attention."""

from __future__ import annotations

from collections.abc import Callable

from modelbuild.convert.common_keys import EMBEDDING, block_count, file_type
from modelbuild.convert.config import Default
from modelbuild.convert.families.standard import BLOCK, squeeze_middle
from modelbuild.convert.family import Family, KeyRule, Number, TensorRule, Transform, Value, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.tokenizers.llama import sentencepiece_or_bpe
from modelbuild.convert.transforms import Reshaped
from modelbuild.convert.value_transforms import Computed

_MIXER = "backbone.layers.{b}.mixer."
#: The runtime wants to know; a state space has no limit.
_CONTEXT_LENGTH = 1 << 20
_EPSILON = Number("attention.layer_norm_rms_epsilon", ("layer_norm_epsilon", "rms_norm_eps"))


def inner_size(model: Model) -> int:
    """Width inside a block; InputError CONFIG when it is not twice the model's."""
    keys = ("mamba_d_ssm", "intermediate_size", "d_inner")
    width = model.config.integer(keys, "embedding_length", 2 * model.hidden)
    if width != 2 * model.hidden:
        key = model.config.find(keys)[0]
        raise model.config.error(key, f"{width} is not twice the width of the model, {model.hidden}")
    return width


def _state_size(model: Model) -> int:
    return model.config.integer(("state_size", "d_state"), "head_dimension")


def _kernel_width(model: Model) -> int:
    return model.config.integer(("conv_kernel", "d_conv"), "head_dimension", 4)


def _time_step_rank(model: Model) -> int:
    return model.config.integer(("time_step_rank", "dt_rank"), "embedding_length", -(-model.hidden // 16))


def _heads(model: Model) -> int:
    """Heads of Mamba 2; InputError CONFIG when they do not divide the width."""
    width = model.config.integer(("mamba_d_head", "head_dim"), "head_dimension", 64)
    if inner_size(model) % width:
        raise model.config.error("head_dim", f"heads of {width} do not divide {inner_size(model)}")
    return inner_size(model) // width


def group_count(key: str, inner: Callable[[Model], int], default: int | None = None) -> Callable[[Model], int]:
    """The groups of a state by a key of the configuration; InputError CONFIG when they do not divide the width."""

    def groups(model: Model) -> int:
        count = model.config.integer(key, "head_count", default)
        if not count or inner(model) % count:
            raise model.config.error(key, f"{count} groups do not divide {inner(model)}")
        return count

    return groups


_groups = group_count("n_groups", inner_size, 1)


def negative_exponential(source: Source, _model: Model, _block: int) -> Source:
    """The decay is stored as its logarithm."""
    return Computed(source, negative_exponential=True)


def as_column(source: Source, _model: Model, _block: int) -> Source:
    """One number for each head, as a column like the matrix of the first Mamba."""
    return Reshaped(source, (source.shape[0], 1))


def decay_column(source: Source, model: Model, block: int) -> Source:
    """The decay of each head, likewise."""
    return negative_exponential(as_column(source, model, block), model, block)


def by_group(groups: Callable[[Model], int]) -> Transform:
    """A vector as a row for each group."""

    def transform(source: Source, model: Model, _block: int) -> Source:
        count = groups(model)
        return Reshaped(source, (count, source.shape[0] // count))

    return transform


def _rename(name: str, model: Model) -> str:
    """Of the first releases and of those with a wrapper; an output that is the embedding again is left out."""
    if name.startswith(("model.backbone", "model.lm_head")):
        name = name.removeprefix("model.")
    if name == "backbone.embedding.weight":
        return "backbone.embeddings.weight"
    if name == "lm_head.weight" and model.config.boolean("tie_word_embeddings", True):
        return ""
    return name


_DEFAULTS: dict[str, Default] = {
    "hidden_size": lambda config: config.get("d_model"),
    "layer_norm_epsilon": lambda config: config.get("rms_norm_eps") or 1e-5,
    "tie_word_embeddings": True,
}
_COMMON: tuple[KeyRule, ...] = (
    Value("context_length", _CONTEXT_LENGTH),
    EMBEDDING,
    Value("feed_forward_length", 0),
    Value("attention.head_count", 0),
    block_count,
    Value("ssm.conv_kernel", _kernel_width),
    Value("ssm.inner_size", inner_size),
    Value("ssm.state_size", _state_size),
)
_OUTER: tuple[TensorRule, ...] = (
    matrix("backbone.embeddings", "token_embd", "? hidden"),
    norm("backbone.norm_f", "output_norm"),
    matrix("lm_head", "output", "vocab hidden", weight="optional"),
    norm("backbone.layers.{b}.norm", f"{BLOCK}attn_norm"),
    matrix(f"{_MIXER}out_proj", f"{BLOCK}ssm_out", "hidden inner"),
)

FAMILIES = (
    Family(
        classes=("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM"),
        architecture="mamba",
        defaults={**_DEFAULTS, "state_size": lambda config: config.get("d_state") or 16},
        keys=(
            *_COMMON,
            Value("ssm.time_step_rank", _time_step_rank),
            _EPSILON,
            Value("ssm.dt_b_c_rms", lambda model: model.config.text("model_type") == "falcon_mamba"),
            file_type,
        ),
        tensors=(
            *_OUTER,
            exact(f"{_MIXER}A_log", f"{BLOCK}ssm_a", "inner state", negative_exponential),
            exact(f"{_MIXER}D", f"{BLOCK}ssm_d", "inner"),
            exact(f"{_MIXER}conv1d.weight", f"{BLOCK}ssm_conv1d.weight", "inner 1 kernel", squeeze_middle),
            exact(f"{_MIXER}conv1d.bias", f"{BLOCK}ssm_conv1d.bias", "inner"),
            matrix(f"{_MIXER}dt_proj", f"{BLOCK}ssm_dt", "inner rank", bias="required"),
            matrix(f"{_MIXER}in_proj", f"{BLOCK}ssm_in", "2*inner hidden"),
            matrix(f"{_MIXER}x_proj", f"{BLOCK}ssm_x", "rank+2*state inner"),
        ),
        rename=_rename,
        sizes={"inner": inner_size, "state": _state_size, "kernel": _kernel_width, "rank": _time_step_rank},
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("olmo", "mpt"),
    ),
    Family(
        classes=("Mamba2ForCausalLM",),
        architecture="mamba2",
        defaults={
            **_DEFAULTS,
            "state_size": lambda config: config.get("d_state") or 128,
            "tie_word_embeddings": False,
        },
        keys=(
            *_COMMON,
            Value("ssm.time_step_rank", _heads),
            Value("ssm.group_count", _groups),
            _EPSILON,
            file_type,
        ),
        tensors=(
            *_OUTER,
            exact(f"{_MIXER}A_log", f"{BLOCK}ssm_a", "state_heads", decay_column),
            exact(f"{_MIXER}D", f"{BLOCK}ssm_d", "state_heads", as_column),
            exact(f"{_MIXER}conv1d.weight", f"{BLOCK}ssm_conv1d.weight", "channels 1 kernel", squeeze_middle),
            exact(f"{_MIXER}conv1d.bias", f"{BLOCK}ssm_conv1d.bias", "channels"),
            exact(f"{_MIXER}dt_bias", f"{BLOCK}ssm_dt.bias", "state_heads"),
            matrix(f"{_MIXER}in_proj", f"{BLOCK}ssm_in", "inner+channels+state_heads hidden"),
            norm(f"{_MIXER}norm", f"{BLOCK}ssm_norm", "inner", by_group(_groups)),
        ),
        rename=_rename,
        sizes={
            "inner": inner_size,
            "kernel": _kernel_width,
            "state_heads": _heads,
            "channels": lambda model: inner_size(model) + 2 * _groups(model) * _state_size(model),
        },
        tokenizer=sentencepiece_or_bpe,
        pre_tokenizers=("olmo", "mpt"),
    ),
)
