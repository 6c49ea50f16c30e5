"""What the user says beside the recipe; imports nothing, because the no-op check needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


class LoadOptions(NamedTuple):
    """What the user says beside the recipe.

    variables: `--var NAME=VALUE`, split. overrides: `--set`, as typed. environment: where variables with `env` look.
    roots: directories that the recipe may read besides its own. rewrite_gguf: for every model that imports a GGUF.
    """

    variables: tuple[tuple[str, str], ...] = ()
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    roots: tuple[Path, ...] = ()
    rewrite_gguf: bool = False

    def fingerprint(self) -> list[str]:
        """Everything but the environment, as texts; two runs with equal ones read a recipe alike."""
        here = [str(Path.cwd())] if self.overrides else []  # their paths start there
        roots = [f"root {root.absolute()}" for root in self.roots]
        rewriting = ["rewrite_gguf"] if self.rewrite_gguf else []
        return [*rewriting, *(f"var {name}={value}" for name, value in self.variables), *self.overrides, *here, *roots]
