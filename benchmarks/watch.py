"""Save to finished: a template edit in a running watch, the cost of watching at rest, what a burst of writes causes.

usage: python -m benchmarks.watch [--edits N] [--idle SECONDS]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row, Skipped, as_table

ROOT = Path(__file__).parents[1]

MODELS = 10
BUDGET_MS, IDLE_BUDGET_MS_PER_S = 300.0, 1.0
_PATIENCE_S = 60.0


def rows(quick: bool) -> list[Row | Skipped]:
    """Time of an edit, CPU time at rest, builds after a burst; the peers are the budgets."""
    return measure(edits=10 if quick else 40, idle_s=10 if quick else 60)


def measure(*, edits: int, idle_s: float) -> list[Row | Skipped]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = (
            "  m{0}: {{from: 'big:120b', remote_host: 'https://models.example.com', template: {{file: m{0}.txt}}}}\n"
        )
        for number in range(MODELS):
            (place / f"m{number}.txt").write_text("{{ .Prompt }}")
        (place / "recipe.yaml").write_text("models:\n" + "".join(model.format(number) for number in range(MODELS)))
        environment = os.environ | {
            "MODELBUILD_STORE": str(place / "models"), "MODELBUILD_CACHE": str(place / "cache"),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        with (place / "said").open("wb") as said:
            watch = subprocess.Popen(
                [sys.executable, "-m", "modelbuild", "--progress", "plain", "watch", "--verbose"],
                cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip
        try:
            _wait(lambda: "start:" in (place / "said").read_text())
            times = sorted(_edit(place, number) for number in range(edits))
            time.sleep(2)
            builds, cpu_s = _builds(place), _cpu_s(watch.pid)
            time.sleep(idle_s)
            idle_builds, idle_ms_per_s = _builds(place) - builds, (_cpu_s(watch.pid) - cpu_s) * 1000 / idle_s
            builds = _builds(place)
            with (place / "m0.txt").open("w") as file:
                for _ in range(10_000):
                    file.seek(0)
                    file.write("{{ .System }}{{ .Prompt }}")
                    file.flush()
            time.sleep(4)
            burst_builds = _builds(place) - builds
        finally:
            watch.terminate()
            watch.wait()
    p95_ms = times[max(0, -(-len(times) * 95 // 100) - 1)]
    print(f"median {times[len(times) // 2]:.0f} ms, p95 {p95_ms:.0f} ms, longest {times[-1]:.0f} ms of {edits} edits")
    return [
        Row(f"watch: template edit to new manifest, {MODELS} models, p95", p95_ms, "budget", BUDGET_MS, "ms", "<= 1"),
        Row("watch: CPU time at rest", idle_ms_per_s, "budget", IDLE_BUDGET_MS_PER_S, "ms / s", "<= 1"),
        Row("watch: builds at rest", 1 + idle_builds, "none, plus 1", 1, "builds", "<= 1"),
        Row("watch: builds after 10,000 writes", burst_builds, "budget", 1, "builds", "<= 1"),
    ]


def _edit(place: Path, number: int) -> float:
    """Milliseconds from a save to a manifest with the saved text."""
    time.sleep(0.3)
    target = number % MODELS
    manifest = place / "models" / "manifests" / "registry.ollama.ai" / "library" / f"m{target}" / "latest"
    before = manifest.read_bytes()
    started_s = time.monotonic()
    (place / f"m{target}.txt").write_text(f"{number} {{{{ .Prompt }}}}")
    _wait(lambda: manifest.read_bytes() != before)
    json.loads(manifest.read_bytes())
    return (time.monotonic() - started_s) * 1000


def _builds(place: Path) -> int:
    return (place / "said").read_text().count(" models up to date, ") + (place / "said").read_text().count(" built, ")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    total = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return max(total, int(fields[0])) / 1e9


def _wait(is_there: object) -> None:
    assert callable(is_there)
    deadline_s = time.monotonic() + _PATIENCE_S
    while not is_there():
        if time.monotonic() > deadline_s:
            raise SystemExit("the watch does not answer")
        time.sleep(0.002)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--idle", type=float, default=60.0)
    chosen = parser.parse_args()
    print(as_table(measure(edits=chosen.edits, idle_s=chosen.idle)))
