"""The table of hostile cases names a test for each, and every one of these tests exists."""

from __future__ import annotations

import ast
import json
import re
from functools import cache

import pytest

from tests.space import ROOT

TABLE: dict[str, list[str]] = json.loads((ROOT / "tests/data/threat_cases.json").read_text())
#: How many cases each family has; one that loses its row would be seen here.
FAMILIES = {
    "h": 16, "k": 25, "a": 8, "t": 30, "o": 14, "m": 16, "s": 43, "x": 8, "c": 12, "v": 12, "d": 24, "n": 10, "r": 4,
    "f": 16, "u": 8, "w": 4, "z": 12, "y": 18, "p": 8, "q": 5, "e": 14, "g": 6, "i": 8, "b": 8, "l": 7, "j": 7,
    "aa": 8, "ab": 4, "ac": 4, "ad": 2,
}  # fmt: skip


@cache
def sources_of(file: str) -> dict[str, str]:
    """The source of each test function in a file."""
    source = (ROOT / file).read_text()
    return {
        node.name: ast.get_source_segment(source, node) or ""
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("case", TABLE)
def test_named_tests_exist(case: str) -> None:
    """A renamed or deleted test leaves no case behind without one."""
    assert TABLE[case]
    for name in TABLE[case]:
        file, _, test = name.partition("::")
        function, _, parameter = test.rstrip("]").partition("[")
        assert function in sources_of(file), name
        assert not parameter or f'"{parameter}"' in (ROOT / file).read_text(), name


def test_cases_can_be_called_by_name(request: pytest.FixtureRequest) -> None:
    """Each test of the table that was collected is found by `pytest -k CASE`."""
    for item in request.session.items:
        tests = {item.nodeid, item.nodeid.partition("[")[0]}
        cases = {case for case, names in TABLE.items() if tests & set(names)}
        assert cases <= item.extra_keyword_matches, item.nodeid


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_lost_a_case(family: str) -> None:
    """Every family has its cases."""
    found = [case for case in TABLE if re.fullmatch(rf"{family}[0-9]+", case)]

    assert FAMILIES[family] == len(found)
