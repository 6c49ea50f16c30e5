"""The tutorial and the how-tos: everything they tell a reader to do works, and prints what they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, OTHER_PROGRAMS, matches, run_page
from tests.space import ROOT, Space

DOCS = ROOT / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs(page: Path, space: Space) -> None:
    """Files are written as shown, every command prints what stands below it."""
    assert run_page(page, space) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_only_other_programs_are_left_out(page: Path) -> None:
    """A block that no test runs starts nothing but programs that are not ours, or sets variables."""
    for fence in FENCE.finditer(page.read_text("utf-8")):
        if fence["language"] == "sh":
            words = {shlex.split(line)[0] for line in fence["body"].splitlines()}
            assert words <= OTHER_PROGRAMS | {"export", "modelbuild"}, words


def test_variable_output_is_matched() -> None:
    """Only what a page marks as variable may differ."""
    assert matches("a … b\n...\nend\n", "a 12 b\nx\ny\nend\n")
    assert not matches("a … b\n", "a 12 c\n")
    assert not matches("a\n", "a\nb\n")
    assert not re.search(r"\.\.\.", (DOCS / "tutorial.md").read_text("utf-8").replace("\n...\n", "\n"))
