"""A directory of its own for every test of the recipe language."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes import Recipes


@pytest.fixture
def recipes(tmp_path: Path) -> Recipes:
    """An empty directory for recipes."""
    return Recipes(tmp_path)
