"""What many family tables share: names, transforms by their meaning. No family of its own."""

from __future__ import annotations

from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.transforms import Computed, interleave_halves


def permute_q(source: Source, model: Model, block: int) -> Source:  # noqa: ARG001
    """Query rows from rotary halves to rotary pairs."""
    return interleave_halves(source, model.heads)


def permute_k(source: Source, model: Model, block: int) -> Source:  # noqa: ARG001
    """Key rows likewise."""
    return interleave_halves(source, model.kv_heads)


def plus_one(source: Source, model: Model, block: int) -> Source:  # noqa: ARG001
    """Norms stored as the difference from one."""
    return Computed(source, addend=1.0)


def rename_to_standard(name: str, model: Model) -> str:
    """Names with the prefix `model.`, which plain base models lack, and without that of nested text models."""
    name = name.replace("text_model.", "")
    if model.hf_class.endswith("Model") and not name.startswith(("model.", "lm_head.")):
        return f"model.{name}"
    return name
