"""Fixtures that all tests share: a scratch place with a recipe, a store and a cache; the reference data where it is."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.limits import within_limits
from tests.space import ROOT, Space

#: Names the directory with recorded reference data that is too large for this repository.
SHARED_VARIABLE = "MODELBUILD_SHARED"

with suppress(ModuleNotFoundError):  # the tests of a wheel do without
    from hypothesis import HealthCheck, settings

    # The same inputs on every machine, however slow it is. FUZZ_SCALE asks for more of them, and for new ones.
    settings.register_profile(
        "tests",
        deadline=None,
        derandomize="FUZZ_SCALE" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    settings.load_profile("tests")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As of what a shell starts in the background. Commands inherit that, and tests press Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: A test, with or without its parameter → the hostile cases that it stands for.
_CASES: dict[str, list[str]] = {}
for _case, _names in json.loads((ROOT / "tests/data/threat_cases.json").read_text()).items():
    for _name in _names:
        _CASES.setdefault(_name, []).append(_case)
#: Tests of hostile cases that call a reader in this process, without servers, children and whole builds.
_READERS = (
    "tests/unit/formats/",
    "tests/unit/recipe/",
    "tests/unit/convert/",
    "tests/unit/store/test_manifest",
    "tests/unit/engine/test_archive.py",
)


def _cases_of(item: pytest.Item) -> list[str]:
    return [*_CASES.get(item.nodeid, ()), *_CASES.get(item.nodeid.partition("[")[0], ())]


@pytest.fixture(autouse=True)
def _limited(request: pytest.FixtureRequest) -> Iterator[None]:
    """Readers of hostile cases have a second of CPU time and 200 MiB of new memory.

    What goes beyond is ended in the middle, not only noticed at the end.
    """
    item = request.node
    if not item.nodeid.startswith(_READERS) or not _cases_of(item):
        yield
        return
    with within_limits():
        yield


@pytest.fixture
def space(tmp_path: Path) -> Space:
    """An empty place with a store and a cache of its own."""
    return Space(tmp_path)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data; tests that need it are skipped where it is not."""
    directory = os.environ.get(SHARED_VARIABLE)
    if not directory:
        pytest.skip(f"{SHARED_VARIABLE} does not name the reference data")
    return Path(directory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Conformance tests carry their marker by where they stand; `-k x04` finds the tests of that hostile case."""
    for item in items:
        item.extra_keyword_matches.update(_cases_of(item))
        if "conformance" in item.path.parts:
            item.add_marker(pytest.mark.conformance)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end; to look for garbage in it took most of some tests' time."""
    gc.collect()
    gc.freeze()
