"""Families are found by class, and only what is needed is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modelbuild.convert import families
from modelbuild.convert.families import all_families, find_family

_COUNT = """
import sys
from modelbuild.convert.families import find_family
assert find_family(sys.argv[1]) is not None
print(*(name.rpartition(".")[2] for name in sys.modules if name.startswith("modelbuild.convert.families.")))
"""


def test_every_class_is_found_in_one_family() -> None:
    """However it is looked up, a class has the family whose table names it."""
    for family in all_families():
        for name in family.classes:
            assert family is find_family(name)


def test_unknown_class_has_none() -> None:
    """Neither does a text that stands in a module for another reason."""
    assert find_family("NoSuchForCausalLM") is None
    assert find_family("rms_norm_eps") is None


def test_one_class_does_not_import_all_tables() -> None:
    """The plan of one checkpoint would otherwise wait for all of them."""
    command = [sys.executable, "-c", _COUNT, "GPTNeoXForCausalLM"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert {"gptneox", "standard"} == set(done.stdout.split())


def test_installation_without_sources_finds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then every table is imported."""
    monkeypatch.setattr(families, "_mentions", lambda name, hf_class: False)

    assert find_family("GPTNeoXForCausalLM") is not None
