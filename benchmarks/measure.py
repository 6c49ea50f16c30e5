"""What the benchmarks share: the CPU time of a child, and rows of one table.

A benchmark that takes part in `python -m benchmarks` has `rows(quick: bool) -> list[Row | Skipped]`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. ours, peer: measured amounts in `unit`; budget: the most (with `>=`: the least) ratio allowed.

    The ratio is ours / peer, so for costs small is good; `budget` is text such as "<= 1.1" or "" for no promise.
    """

    work: str
    ours: float
    peer_name: str
    peer: float
    unit: str = "CPU s"
    budget: str = ""

    @property
    def ratio(self) -> float:
        """Ours as a multiple of the peer's."""
        return self.ours / self.peer if self.peer else float("inf")

    @property
    def verdict(self) -> str:
        """kept or missed; empty without a budget."""
        if not self.budget:
            return ""
        sign, limit = self.budget.split()
        is_kept = self.ratio <= float(limit) if sign == "<=" else self.ratio >= float(limit)
        return "kept" if is_kept else "missed"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A comparison that could not run, and what to install for it."""

    work: str
    install: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a child process took."""

    cpu_s: float
    wall_s: float
    peak_mib: float


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run a command that must succeed and return its cost, that of its own waited-for children included."""
    started_s = time.monotonic()
    process = subprocess.Popen(
        [str(part) for part in command], env=_usual(env), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {errors[-2000:].decode(errors='replace')}")
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - started_s, usage.ru_maxrss / 1024)


def output(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> str:
    """What a command that must succeed prints."""
    environment = {"PYTHONPATH": str(ROOT), **_usual(env)}
    return subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True, text=True).stdout


def _usual(env: Mapping[str, str] | None) -> dict[str, str]:
    """Surroundings in which Python keeps what it compiled, as it does for users."""
    return {key: value for key, value in (env or os.environ).items() if key != "PYTHONDONTWRITEBYTECODE"}


def least(costs: Iterable[Cost]) -> Cost:
    """The run with the least CPU time: on a busy machine the others measure their neighbours."""
    return min(costs, key=lambda cost: cost.cpu_s)


def describe_machine() -> str:
    """Processor, cores, memory, system and Python: what a reader needs, nothing that names this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{processor}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()}, Python {python}"


def as_table(rows: Iterable[Row | Skipped]) -> str:
    """A Markdown table; what was skipped says what to install."""
    lines = ["| work | modelbuild | peer | unit | ratio | budget | |", "|---|---:|---:|---|---:|---:|---|"]
    for row in rows:
        if isinstance(row, Skipped):
            lines.append(f"| {row.work} | | | | | | skipped: {row.install} |")
            continue
        peer = f"{_amount(row.peer)} ({row.peer_name})"
        cells = [row.work, _amount(row.ours), peer, row.unit, f"{row.ratio:.2f}", row.budget, row.verdict]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _amount(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
