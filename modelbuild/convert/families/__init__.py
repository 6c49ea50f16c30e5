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
    return tuple(family for name in _module_names() for family in _families_of(name))


def find_family(hf_class: str) -> Family | None:
    """The family that converts a class, None when there is none.

    Only modules whose text has the class's name are imported: all of them take longer than a conversion's plan.
    """
    for name in _module_names():
        if _mentions(name, hf_class):
            for family in _families_of(name):
                if hf_class in family.classes:
                    return family
    return _by_class().get(hf_class)


@cache
def _by_class() -> dict[str, Family]:
    families: dict[str, Family] = {}
    for family in all_families():
        for name in family.classes:
            assert name not in families, f"two families convert {name}"
            families[name] = family
    return families


@cache
def _module_names() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def _text_of(name: str) -> bytes:
    """The source of a module; empty when it is installed without."""
    try:
        return pkgutil.get_data(__name__, f"{name}.py") or b""
    except OSError:
        return b""


def _mentions(name: str, hf_class: str) -> bool:
    return f'"{hf_class}"'.encode("utf-8", "replace") in _text_of(name)


def _families_of(name: str) -> Iterator[Family]:
    table = importlib.import_module(f"{__name__}.{name}")
    family = getattr(table, "FAMILY", None)
    yield from getattr(table, "FAMILIES", () if family is None else (family,))
