"""docs/benchmarks.md is written section by section."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import page
from benchmarks.__main__ import COMPARISONS
from tests.space import ROOT


def test_sections_are_replaced_one_by_one(tmp_path: Path) -> None:
    """A comparison that is measured again changes its own table only; the order is that of the page."""
    target = tmp_path / "benchmarks.md"
    page.write({"kernels": "| k1 |", "noop": "| n1 |"}, quick=False, page=target)
    first = target.read_text()

    page.write({"kernels": "| k2 |"}, quick=True, page=target)

    second = target.read_text()
    assert first.index("| n1 |") < first.index("| k1 |")
    assert "| n1 |" in second
    assert "| k2 |" in second
    assert "| k1 |" not in second
    assert first.partition("<!-- kernels -->")[0] == second.partition("<!-- kernels -->")[0]


def test_every_comparison_has_a_section() -> None:
    """None is measured and then not shown."""
    assert set(COMPARISONS) == set(page.HEADINGS)


def test_the_readme_claims_no_more_than_was_measured() -> None:
    """Its numbers, the ratio to llama.cpp, the memory and the time of a no-op, are those of the tables or worse."""
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    measured = page.PAGE.read_text("utf-8")
    rows = dict(re.findall(r"^\| (.+?) \| ([0-9.,]+) \|", measured, re.MULTILINE))
    ratio = re.search(r"\| checkpoint to Q4_K_M, .* \(rewrite \+ llama.cpp\) \| CPU s \| ([0-9.]+) ", measured)

    assert ratio is not None
    assert "in a seventh of the CPU time that llama.cpp takes, in 150 MiB of memory" in text
    assert 1 / 7 >= float(ratio[1])
    assert 150 >= float(rows["peak memory of that, 279 M weights"])
    assert "a thousand models are checked in 0.11 s of it" in text
    assert 115 >= float(rows["no-op, 1,000 models"])
