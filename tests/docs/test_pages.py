"""The README, the tutorial and the how-tos: everything they tell a reader to do works, and prints what they show."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild.cli.main import COMMANDS
from tests.docs.pages import FENCE, OTHER_PROGRAMS, matches, run_page
from tests.space import ROOT, Space

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", DOCS / "tutorial.md", DOCS / "watch.md", *sorted((DOCS / "howto").glob("*.md"))]


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
            typed_elsewhere = {"mkdir", "cp", "cd"} if page.stem == "tutorial" else set()  # test_transcript.py does
            assert words <= OTHER_PROGRAMS | {"export", "modelbuild"} | typed_elsewhere, words


def test_the_readme_names_every_command() -> None:
    """Nobody finds a command that is in no table."""
    rows = re.findall(r"^\| (`.*`) \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(\w+)", row)}

    assert [] == sorted(set(COMMANDS) - named)


def test_variable_output_is_matched() -> None:
    """Only what a page marks as variable may differ."""
    assert matches("a … b\n...\nend\n", "a 12 b\nx\ny\nend\n")
    assert not matches("a … b\n", "a 12 c\n")
    assert not matches("a\n", "a\nb\n")
    assert matches("a\nb\n", "a\n  12 % of 8.0 MiB\nb\n")
    assert not re.search(r"\.\.\.", (DOCS / "tutorial.md").read_text("utf-8").replace("\n...\n", "\n"))


@pytest.mark.parametrize("generator", ["generate_cli_reference.py", "generate_manual.py", "generate_rebuilds.py"])
def test_generated_pages_are_fresh(generator: str) -> None:
    """A generated page is what its generator writes now."""
    done = subprocess.run([sys.executable, str(DOCS / generator), "--check"], cwd=ROOT, check=False, timeout=120)

    assert 0 == done.returncode, f"run python docs/{generator}"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_manual_is_sound() -> None:
    """troff formats the manual page without a warning, and every command is in it."""
    done = subprocess.run(
        ["groff", "-man", "-t", "-ww", "-Tutf8", "-P-cbou", str(DOCS / "modelbuild.1")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (0, "") == (done.returncode, done.stderr)
    assert [] == [name for name in COMMANDS if f"   modelbuild {name} [OPTIONS]" not in done.stdout]


def test_every_variable_is_documented() -> None:
    """What the program reads from its environment is in the table of the reference, and so in the manual."""
    sources = [path for path in (ROOT / "modelbuild").rglob("*.py") if path.parent.name != "native"]
    named = {
        name for path in sources for name in re.findall(r"\"(MODELBUILD_[A-Z_]+|OLLAMA_[A-Z_]+)\"", path.read_text())
    }
    page, manual = (DOCS / "cli.md").read_text("utf-8"), (DOCS / "modelbuild.1").read_text("utf-8")

    assert [] == sorted(name for name in named if f"`{name}`" not in page or name not in manual)


def test_site_builds(tmp_path: Path) -> None:
    """Every page becomes one of the site; a link or heading that is not there is an error."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "build_site.py"), str(tmp_path / "site")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    site = tmp_path / "site"
    assert pages == {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    index = (site / "index.html").read_text("utf-8")
    assert [] == [page for page in sorted(pages) if f'<a href="{page}.html"' not in index], "in the navigation"


def test_broken_links_are_named(tmp_path: Path) -> None:
    """Both a missing file and a missing heading are reported, and nothing is written."""
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(DOCS / "build_site.py", docs)
    (docs / "index.md").write_text("# One\n\n[a](gone.md) [b](index.md#two) [c](#one)\n")
    (tmp_path / "README.md").write_text("# Zero\n\n[a](docs/index.md) [b](docs/index.md#zero)\n")

    done = subprocess.run(
        [sys.executable, str(docs / "build_site.py"), str(tmp_path / "site")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert 1 == done.returncode
    assert [
        "docs/index.md: gone.md is not there",
        "docs/index.md: index.md#two has no such heading",
        "README.md: docs/index.md#zero has no such heading",
    ] == done.stderr.splitlines()
    assert not (tmp_path / "site").exists()
