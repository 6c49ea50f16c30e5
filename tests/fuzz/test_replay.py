"""What fuzzing found once is settled for good, and every target still starts from inputs that it accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.readers import READERS, settle
from tests.limits import within_limits
from tests.space import ROOT

FOUND = sorted(path for path in (ROOT / "tests/data/fuzz").rglob("*") if path.is_file())


@pytest.mark.parametrize("name", READERS)
def test_seeds_are_accepted(name: str) -> None:
    """A target whose seeds are refused would look at error paths only."""
    for seed in READERS[name].seeds:
        READERS[name].read(seed)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_findings_stay_fixed(path: Path) -> None:
    """An input that once broke a reader is read or refused with an error of ours, in bounded time and memory."""
    reader = READERS[path.parent.name]
    reader.read(reader.seeds[0])  # what is imported and cached when it is needed is not the input's doing
    data = path.read_bytes()

    with within_limits():
        settle(reader, data)
