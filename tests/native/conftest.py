"""The compiled kernels under test: those of the package, or those of the directory that a sanitizer run names."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

import modelbuild.quantize

#: A directory with another build of the extension; set by run_sanitized.sh.
DIRECTORY = os.environ.get("MODELBUILD_TEST_KERNELS", "")
if DIRECTORY:
    modelbuild.quantize.__path__.insert(0, DIRECTORY)


@pytest.fixture(scope="session")
def native() -> ModuleType:
    """The extension module; tests are skipped where it was not built."""
    module: ModuleType = pytest.importorskip("modelbuild.quantize._native", reason="the kernels are not compiled")
    assert str(module.__file__).startswith(DIRECTORY), "another build is loaded than the one to test"
    return module
