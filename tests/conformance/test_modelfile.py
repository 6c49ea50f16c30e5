"""Modelfiles against recordings of Ollama's own command line: the same create requests, the same error texts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.space import ROOT


def test_recorded_modelfiles_give_the_recorded_requests(shared: Path, tmp_path: Path) -> None:
    """Every recorded Modelfile is translated to the request that was sent, or refused with the text that was shown."""
    golden = shared / "golden"
    scenarios = sorted(str(path.relative_to(golden)) for path in (golden / "modelfile").glob("*.json"))
    command = f"{sys.executable} -m modelbuild import {{modelfile}} --to request"

    done = subprocess.run(
        [sys.executable, "replay.py", "--base-url", "http://127.0.0.1:1", "--store", str(tmp_path), "--error-text",
         "-q",
         "--translate-cmd", command, *scenarios],
        cwd=golden, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "failed 0" in done.stdout, done.stdout + done.stderr
    assert 0 == done.returncode
    assert f"passed {len(scenarios) - 5}" in done.stdout
