"""Checkpoints to GGUF: decides from headers and small files which tensors and keys the result has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelbuild.convert.checkpoint import Checkpoint
    from modelbuild.convert.engine import Conversion, ConversionOptions, plan_conversion

__all__ = ["Checkpoint", "Conversion", "ConversionOptions", "plan_conversion"]


def __getattr__(name: str) -> object:
    """Names of this package, imported when first used: a build with nothing to do needs none of numpy."""
    if name == "Checkpoint":
        from modelbuild.convert.checkpoint import Checkpoint

        return Checkpoint
    if name in __all__:
        from modelbuild.convert import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
