"""The model architectures that llama.cpp knows, by the names in its files."""

from __future__ import annotations

from functools import cache


@cache
def known_architectures() -> frozenset[str]:
    """Their names, from the `gguf` package."""
    from gguf.constants import MODEL_ARCH_NAMES

    return frozenset(MODEL_ARCH_NAMES.values())


def is_known_architecture(name: str) -> bool:
    """Could llama.cpp load a model of this architecture?"""
    return name in known_architectures()
