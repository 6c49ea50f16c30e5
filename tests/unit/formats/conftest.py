"""Tests of hostile cases run under the limits that each case has: a second of CPU time, 200 MiB of new memory."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.limits import within_limits
from tests.space import ROOT

_CASES = {name for names in json.loads((ROOT / "tests/data/threat_cases.json").read_text()).values() for name in names}


@pytest.fixture(autouse=True)
def _limited(request: pytest.FixtureRequest) -> Iterator[None]:
    """What goes beyond is ended in the middle, not only noticed at the end."""
    name = request.node.nodeid
    if name not in _CASES and name.partition("[")[0] not in _CASES:
        yield
        return
    with within_limits():
        yield
