"""`modelbuild doctor`."""

from __future__ import annotations

import json

import pytest

from modelbuild import __version__
from modelbuild.quantize.kernels import load_native
from tests.space import Space


def test_report_names_versions_places_and_kernels(space: Space) -> None:
    """The JSON report holds what a bug report needs, and looking changes nothing."""
    space.store.mkdir()

    outcome = space.run("doctor", "--json")

    report = json.loads(outcome.stdout)
    assert 0 == outcome.status, outcome.stderr
    assert __version__ == report["modelbuild"]
    assert [("store", True), ("cache", False)] == [(place["role"], place["exists"]) for place in report["places"]]
    assert all(place["hard_link"] in (True, False) for place in report["places"])
    assert report["distributions"]["numpy"]
    assert [space.store] == list(space.root.iterdir())
    assert [] == list(space.store.iterdir())


def test_fast_kernels_need_no_hint(space: Space) -> None:
    """With the compiled kernels active there is nothing to advise."""
    native = load_native()
    if native is None:
        pytest.skip("the kernels are not compiled")

    outcome = space.run("doctor")

    assert "" == outcome.stderr
    assert f"kernels     {native.levels()[-1]}: the fastest that this processor can run" in outcome.stdout


def test_slow_kernels_come_with_a_hint(space: Space) -> None:
    """Where the variable holds the fast kernels back, the report says so and what to do."""
    outcome = space.run("doctor", env={"MODELBUILD_KERNELS": "numpy"})

    assert "kernels     numpy: MODELBUILD_KERNELS asks for it" in outcome.stdout
    assert outcome.stderr.startswith("hint: packing is ")


def test_unknown_kernels_are_a_usage_error(space: Space) -> None:
    """A value that names no code path is refused with the ones there are."""
    outcome = space.run("doctor", env={"MODELBUILD_KERNELS": "mmx"})

    assert 2 == outcome.status
    assert "MODELBUILD_KERNELS is 'mmx', but this machine has only auto, numpy" in outcome.stderr
