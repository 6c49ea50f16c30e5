"""The table of hostile cases is complete: every row of the reference's table stands in it, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.space import ROOT

TABLE = json.loads((ROOT / "tests/data/threat_cases.json").read_text())
_CASE = re.compile(r"([a-z]{1,2})([0-9]{1,2})(?:–[a-z]{1,2}([0-9]{1,2}))?")


def _expand(text: str) -> set[str]:
    """Names of cases in a cell such as "h05, h06" or "f01–f04"."""
    found: set[str] = set()
    for family, first, last in _CASE.findall(text):
        digits = len(first)
        found |= {f"{family}{number:0{digits}}" for number in range(int(first), int(last or first) + 1)}
    return found


def _rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]


def test_every_case_has_a_test(shared: Path) -> None:
    """361 cases in section 6, each with a test under its name."""
    section = (shared / "spec/threats.md").read_text().partition("\n## 6. ")[2].partition("\n## 7. ")[0]
    cases = {case for row in _rows(section) if _CASE.match(row[0]) for case in _expand(row[0])}

    assert 361 == len(cases)
    assert cases == set(TABLE)


def test_every_threat_is_proven(shared: Path) -> None:
    """Each of the 31 threats names its cases as proof, and all of these have tests."""
    section = (shared / "spec/threats.md").read_text().partition("\n## 4. ")[2].partition("\n## 5. ")[0]
    proofs = {row[0]: _expand(row[-1]) for row in _rows(section) if re.fullmatch("T[0-9]+", row[0])}

    assert 31 == len(proofs)
    assert {} == {threat: sorted(cases - set(TABLE)) for threat, cases in proofs.items() if not cases <= set(TABLE)}
    assert [] == [threat for threat, cases in proofs.items() if not cases]
