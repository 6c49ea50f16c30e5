"""docs/transcript.md is what a newcomer sees now."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.space import ROOT

needs = pytest.mark.skipif(
    not (ROOT / ".git").exists() or not all(map(shutil.which, ("git", "make", "bash"))), reason="no checkout to copy"
)


@needs
def test_transcript_is_what_a_newcomer_sees() -> None:
    """Typed again in an empty home, README and tutorial give what the page shows, times aside."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate_transcript.py"), "--check"],
        cwd=ROOT, check=False, timeout=600, capture_output=True, text=True,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr


def test_transcript_names_no_directory_of_a_machine() -> None:
    """Neither the home it was typed in, nor where Python stands."""
    text = (ROOT / "docs" / "transcript.md").read_text("utf-8")

    assert [] == [place for place in ("/tmp", "/home", "/root", "/usr", "/work") if place in text]
    assert "error: recipe.yaml:3:11: unknown quantization type" in text
    assert 0 == text.count("command not found")
