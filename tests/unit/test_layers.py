"""The layers of the package: imports point down, never up or sideways."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "modelbuild"

#: From the doors down to the records. Packages on one line may not import each other, with the exceptions below.
LAYERS = [
    {"__main__", "__init__"},
    {"api"},
    {"cli"},
    {"server", "watch"},
    {"engine"},
    {"plan"},
    {"recipe", "sources", "convert", "quantize", "template", "store", "remote"},
    {"formats"},
    {"model_name", "digest", "places", "extras"},
    {"events", "errors", "records", "late_pattern", "similar_names"},
]
#: Sideways edges with their reasons.
ALLOWED = {
    ("sources", "convert"): "a directory is identified by what the converter can read",
    ("recipe", "template"): "a template is checked where it stands in the recipe",
}


def _level(package: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if package in names)


def _edges() -> Iterator[tuple[str, str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{item.name}" for item in node.names)][:1]
                if node.module == "modelbuild":
                    names = [f"modelbuild.{item.name}" for item in node.names]
            elif isinstance(node, ast.Import):
                names = [item.name for item in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "modelbuild" and len(parts) > 1 and parts[1] != here and not parts[1].startswith("_"):
                    yield str(path.relative_to(PACKAGE)), here, parts[1]


def test_imports_point_down() -> None:
    """Every import between packages goes to a lower layer, or is a listed exception."""
    wrong = [
        f"{path}: {here} → {there}"
        for path, here, there in _edges()
        if _level(there) <= _level(here) and (here, there) not in ALLOWED
    ]

    assert wrong == []


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_small(path: Path) -> None:
    """A module is one idea: at most 500 lines, tables (modules without functions) exempt."""
    text = path.read_text()
    has_logic = any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(text)))

    assert not has_logic or len(text.splitlines()) <= 500
