"""Family tables, one small module each; a module with a FAMILY or FAMILIES is found without being listed anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache

from modelbuild.convert.family import Family


@cache
def all_families() -> tuple[Family, ...]:
    """Every family, by module name and then in the order of the module."""
    return tuple(_load())


def find_family(hf_class: str) -> Family | None:
    """The family that converts a class, None when there is none."""
    return _by_class().get(hf_class)


@cache
def _by_class() -> dict[str, Family]:
    families: dict[str, Family] = {}
    for family in all_families():
        for name in family.classes:
            assert name not in families, f"two families convert {name}"
            families[name] = family
    return families


def _load() -> Iterator[Family]:
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda item: item.name):
        table = importlib.import_module(f"{__name__}.{module.name}")
        family = getattr(table, "FAMILY", None)
        yield from getattr(table, "FAMILIES", () if family is None else (family,))
