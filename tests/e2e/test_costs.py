"""Guards against slow changes: the scripts of benchmarks/, small, as ratios of CPU time within one run.

A limit leaves room for the noise of a busy machine above what is usual, so that only a real change breaks it.
"""

from __future__ import annotations

import shutil
import sys

import pytest

from benchmarks import measure, noop, store

#: Least CPU time of a build with nothing to do, as a multiple of starting Python, by number of models; usual: 6.
NO_OP_LIMITS = {10: 9.0, 1000: 10.0}
#: A prompt edit as a multiple of a build with nothing to do; usual: 1.5.
EDIT_LIMIT = 3.0
#: Hashing beside openssl, bytes per CPU second; usual: 1.
HASH_FLOOR = 0.7
#: So many that a few of them are undisturbed while other tests run.
ROUNDS = 25


@pytest.mark.parametrize("models", NO_OP_LIMITS)
def test_nothing_to_do(models: int) -> None:
    """The number of models hardly matters, and most of the time is Python's."""
    command = [sys.executable, "-m", "modelbuild", "--progress", "quiet", "build"]
    own = noop.Tool("modelbuild", noop.write_recipe, command, ROUNDS)
    bare_ms = measure.least(measure.run([sys.executable, "-c", "pass"]) for _ in range(5)).cpu_s * 1000

    assert noop.measure(own, models) <= NO_OP_LIMITS[models] * bare_ms


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_files() -> None:
    """Hashing is as fast as openssl's; neither an import by link nor an edit of a prompt writes weights."""
    rows = {row.work: row for row in store.compare(0.0625) if isinstance(row, measure.Row)}

    by_name = {name: row.ratio for name, row in rows.items()}
    assert by_name["hash 0.0625 GiB"] >= HASH_FLOOR, rows
    assert by_name["prompt edit, model of 0.0625 GiB"] <= EDIT_LIMIT, rows
    assert by_name["disk that this takes, with a link"] <= 1, rows
    assert by_name["blobs that this writes"] <= 1, rows
