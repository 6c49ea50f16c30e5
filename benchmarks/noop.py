"""CPU time of a build with nothing to do, beside a bare Python start, for 10 and 1,000 models."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 9


def cpu_ms(command: list[str], directory: Path, env: dict[str, str]) -> float:
    """The least CPU time of several runs, user and system, in milliseconds."""
    best = float("inf")
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=directory, env=env, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best * 1000


def main() -> None:
    """Print the table."""
    bare = None
    print(f"{'command':<34}{'CPU ms':>8}{'× python':>10}")
    for count in (10, 1000):
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            env = os.environ | {
                "MODELBUILD_STORE": str(place / "models"),
                "MODELBUILD_CACHE": str(place / "cache"),
                "PYTHONPATH": str(ROOT),
            }
            models = "".join(
                f"  m{i}: {{from: 'big:120b', remote_host: 'https://models.example.com', system: 'Number {i}.'}}\n"
                for i in range(count)
            )
            (place / "recipe.yaml").write_text("models:\n" + models)
            build = [sys.executable, "-m", "modelbuild", "build", "--progress", "quiet"]
            subprocess.run(build, cwd=place, env=env, check=True)
            if bare is None:
                bare = cpu_ms([sys.executable, "-c", "pass"], place, env)
                version = cpu_ms([sys.executable, "-m", "modelbuild", "--version"], place, env)
                print(f"{'python -c pass':<34}{bare:>8.0f}{1:>10.1f}")
                print(f"{'modelbuild --version':<34}{version:>8.0f}{version / bare:>10.1f}")
            spent = cpu_ms(build, place, env)
            print(f"{f'modelbuild build, {count:,} models, no-op':<34}{spent:>8.0f}{spent / bare:>10.1f}")


if __name__ == "__main__":
    main()
