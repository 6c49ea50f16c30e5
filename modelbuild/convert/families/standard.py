"""What many family tables share: rules for the usual names, transforms by their meaning. No family of its own."""

from __future__ import annotations

from collections.abc import Callable

from modelbuild.convert.family import Presence, TensorRule, Transform, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.transforms import Reshaped, Transposed, interleave_halves, take_rows, take_second_axis
from modelbuild.convert.value_transforms import Computed
from modelbuild.errors import UnsupportedError

LAYER = "model.layers.{b}."
BLOCK = "blk.{b}."


# -- transforms --------------------------------------------------------------------------------------------------------


def permute_q(source: Source, model: Model, _block: int) -> Source:
    """Query rows from rotary halves to rotary pairs."""
    return interleave_halves(source, model.heads)


def permute_k(source: Source, model: Model, _block: int) -> Source:
    """Key rows likewise."""
    return interleave_halves(source, model.kv_heads)


def plus_one(source: Source, _model: Model, _block: int) -> Source:
    """Norms stored as the difference from one."""
    return Computed(source, addend=1.0)


def halve_rows(source: Source, _model: Model, _block: int) -> tuple[Source, Source]:
    """A fused matrix: its first half of rows and its second."""
    half = source.shape[0] // 2
    return take_rows(source, 0, half), take_rows(source, half, 2 * half)


def halve_expert_rows(source: Source, _model: Model, _block: int) -> tuple[Source, Source]:
    """The same for every expert of a stack."""
    half = source.shape[1] // 2
    return take_second_axis(source, 0, half), take_second_axis(source, half, 2 * half)


def transpose(source: Source, _model: Model, _block: int) -> Source:
    """Weights stored with inputs as rows."""
    return Transposed(source)


def squeeze_middle(source: Source, _model: Model, _block: int) -> Source:
    """Kernels of a convolution by channel, (channels, 1, width), without the axis of one."""
    channels, _, width = source.shape
    return Reshaped(source, (channels, width))


def multiplied(*factors: Callable[[Model], float]) -> Transform:
    """Weights times numbers of the configuration, one after another."""

    def transform(source: Source, model: Model, _block: int) -> Source:
        refuse_without_configuration(model)
        for factor in factors:
            source = Computed(source, factor=factor(model))
        return source

    return transform


def refuse_without_configuration(model: Model) -> None:
    """UnsupportedError ADAPTER over a GGUF: it does not tell the numbers that went into its weights."""
    if model.is_of_header:
        message = "numbers that multiply the weights of the base model are not in its GGUF"
        hint = "name the checkpoint as the base of the adapter"
        raise UnsupportedError("ADAPTER", message, path=model.checkpoint.origin, hint=hint)


# -- names -------------------------------------------------------------------------------------------------------------


def rename_to_standard(name: str, model: Model) -> str:
    """Names with the prefix `model.`, which plain base models lack, and without that of nested text models."""
    name = name.replace("text_model.", "")
    if model.hf_class.endswith("Model") and not name.startswith(("model.", "lm_head.")):
        return f"model.{name}"
    return name


# -- rules -------------------------------------------------------------------------------------------------------------


def embeddings(
    *,
    output: Presence = "untied",
    last_norm: bool = True,
    norm_transform: Transform | None = None,
    norm_bias: Presence = "absent",
) -> tuple[TensorRule, ...]:
    """Token embedding, last norm, output."""
    last = (norm("model.norm", "output_norm", transform=norm_transform, bias=norm_bias),) if last_norm else ()
    return (
        matrix("model.embed_tokens", "token_embd", "? hidden"),
        *last,
        matrix("lm_head", "output", "vocab hidden", weight=output),
    )


def attention(
    *,
    q: Transform | None = None,
    k: Transform | None = None,
    bias: Presence = "absent",
    output_bias: Presence | None = None,
) -> tuple[TensorRule, ...]:
    """Separate projections of queries, keys, values and the output."""
    return (
        matrix(f"{LAYER}self_attn.q_proj", f"{BLOCK}attn_q", "q hidden", q, bias=bias),
        matrix(f"{LAYER}self_attn.k_proj", f"{BLOCK}attn_k", "kv hidden", k, bias=bias),
        matrix(f"{LAYER}self_attn.v_proj", f"{BLOCK}attn_v", "kv hidden", bias=bias),
        matrix(f"{LAYER}self_attn.o_proj", f"{BLOCK}attn_output", "hidden q", bias=output_bias or bias),
    )


def head_norms(transform: Transform | None = None, *, weight: Presence = "required") -> tuple[TensorRule, ...]:
    """Norms of queries and keys, one for all heads."""
    return (
        norm(f"{LAYER}self_attn.q_norm", f"{BLOCK}attn_q_norm", "head", transform, weight=weight),
        norm(f"{LAYER}self_attn.k_norm", f"{BLOCK}attn_k_norm", "head", transform, weight=weight),
    )


def block_norms(*, bias: Presence = "absent") -> tuple[TensorRule, ...]:
    """A norm before attention, one before the feed-forward part."""
    return (
        norm(f"{LAYER}input_layernorm", f"{BLOCK}attn_norm", bias=bias),
        norm(f"{LAYER}post_attention_layernorm", f"{BLOCK}ffn_norm", bias=bias),
    )


def gated_mlp(*, bias: Presence = "absent") -> tuple[TensorRule, ...]:
    """Gate, up and down."""
    return (
        matrix(f"{LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", "ff hidden", bias=bias),
        matrix(f"{LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff hidden", bias=bias),
        matrix(f"{LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "hidden ff", bias=bias),
    )
