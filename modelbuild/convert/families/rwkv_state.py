"""What RWKV 6 and 7 share: a state instead of attention, inputs mixed with the token before. No family of its own."""

from __future__ import annotations

from collections.abc import Callable

from modelbuild.convert.families.standard import BLOCK, block_norms, embeddings, gated_mlp
from modelbuild.convert.family import TensorRule, Value
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.transforms import Reshaped

#: A state has no limit.
CONTEXT = Value("context_length", 1 << 20)
NO_HEADS = Value("attention.head_count", 0)
#: What stays of Qwen 2 where a state takes the place of its attention.
QWEN_AROUND: tuple[TensorRule, ...] = (*embeddings(), *block_norms(), *gated_mlp())


def flat(source: Source, _model: Model, _block: int) -> Source:
    """A vector that is stored with axes of one, or by head."""
    count = 1
    for size in source.shape:
        count *= size
    return Reshaped(source, (count,))


def _stack_flat(source: Source, _model: Model, _block: int) -> Source:
    """Vectors of one kind in one tensor, with the axes over which the runtime repeats them."""
    return Reshaped(source, (source.shape[0], 1, 1, source.shape[-1]))


def mixed(name: str, count: Callable[[Model], int]) -> TensorRule:
    """How much of the token before is mixed in, for each use one vector; the rename numbers them."""
    return TensorRule(
        f"{name}.{{e}}",
        f"{BLOCK}time_mix_lerp_fused.weight",
        "1 1 hidden",
        _stack_flat,
        suffixed=False,
        count=count,
    )


def head_size(model: Model) -> int:
    """Width of a head of the state."""
    return model.config.integer(("head_size", "head_dim"), "head_dimension", 64)


def state_heads(model: Model) -> int:
    """Heads of the state."""
    return model.hidden // head_size(model)
