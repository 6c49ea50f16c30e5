"""Tables of vision parts, one small module each; `vision_classes` says which module converts which checkpoint."""

from __future__ import annotations

from importlib import import_module

from modelbuild.convert.family import Family


def projector_family(kind: str) -> Family:
    """The table of a kind that `projector_kind` named."""
    family = import_module(f"{__name__}.{kind}").FAMILY
    assert isinstance(family, Family), f"{kind} has no table"
    return family
