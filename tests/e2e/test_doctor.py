"""`modelbuild doctor`."""

from __future__ import annotations

import errno
import json
import shlex
import sys
from typing import NoReturn

import pytest

from modelbuild import __version__
from modelbuild.engine import diagnose
from modelbuild.extras import install_hint
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


def test_fast_kernels_need_no_hint(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled kernels active, and everything installed, there is nothing to advise."""
    native = load_native()
    if native is None:
        pytest.skip("the kernels are not compiled")
    monkeypatch.setattr(diagnose, "has_extra", lambda _: True)

    outcome = space.run("doctor")

    assert "" == outcome.stderr
    assert "extras      server, remote, render, dask\n" in outcome.stdout
    assert f"kernels     {native.levels()[-1]}: the fastest that this processor can run" in outcome.stdout


def test_slow_kernels_come_with_a_hint(space: Space) -> None:
    """Where the variable holds the fast kernels back, the report says so and what to do."""
    outcome = space.run("doctor", env={"MODELBUILD_KERNELS": "numpy"})

    assert "kernels     numpy: MODELBUILD_KERNELS asks for it" in outcome.stdout
    assert "hint: packing is " in outcome.stderr


def test_missing_extras_come_with_the_command_that_installs_them(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter that runs installs them: another pip on the path would serve another one."""
    monkeypatch.setattr(diagnose, "has_extra", lambda extra: extra == "remote")

    outcome = space.run("doctor")

    assert "extras      server not installed, remote, render not installed, dask not installed\n" in outcome.stdout
    assert f"hint: for the missing extras: {install_hint('server,render,dask')}\n" in outcome.stderr
    assert install_hint("server").startswith((shlex.quote(sys.executable), "uv pip install --python "))


def test_a_directory_that_may_not_be_written_comes_with_a_hint(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's models directory: the report says so, and which option chooses another one."""
    monkeypatch.setattr(diagnose.tempfile, "TemporaryDirectory", _refuse)

    outcome = space.run("doctor")

    assert f"hint: you may not write to {space.store}: choose another store with --store\n" in outcome.stderr


def _refuse(**_: object) -> NoReturn:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_unknown_kernels_are_a_usage_error(space: Space) -> None:
    """A value that names no code path is refused with the ones there are."""
    outcome = space.run("doctor", env={"MODELBUILD_KERNELS": "mmx"})

    assert 2 == outcome.status
    assert "MODELBUILD_KERNELS is 'mmx', but this machine has only auto, numpy" in outcome.stderr
