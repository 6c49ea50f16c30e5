"""docs/benchmarks.md is written section by section."""

from __future__ import annotations

from pathlib import Path

from benchmarks import page
from benchmarks.__main__ import COMPARISONS


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
