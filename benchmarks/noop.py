"""CPU time of a build with nothing to do, beside doit, DVC, Snakemake and Ninja on the same graph.

The graph: 10 and 1,000 models, each made from a text file of its own. Every tool builds it once; then the least CPU
time of several runs that find nothing to do is compared. The peers are installed from the package index into an
environment of their own (`--peers DIRECTORY` keeps it for the next time); `--alone` measures modelbuild only.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNTS = (10, 1000)
#: The budgets: modelbuild may use this share of a peer's CPU time.
LIMITS = {"doit": 1.0, "DVC": 1 / 6, "Snakemake": 1 / 6}
DVC_FIRST = ("commit", "--force", "--quiet")
SNAKEMAKE_FIRST = ("--quiet", "--cores", "1", "--touch")
#: File systems keep times coarsely, so files as young as their records are read again; old ones are what is usual.
LONG_AGO_S = 1_700_000_000


@dataclass(frozen=True)
class Tool:
    """A build tool: how the graph is written for it, and what builds it. rounds: how often the no-op is measured.

    first: arguments that make a tool take note of 1,000 results that are there; copying them would take it hours.
    """

    name: str
    write: Callable[[Path, int], None]
    command: list[str]
    rounds: int
    first: tuple[str, ...] = ()


def write_recipe(place: Path, count: int) -> None:
    """The graph as a recipe: remote models need no weights, so what is measured is the graph."""
    model = (
        "  m{0}: {{from: 'big:120b', remote_host: 'https://models.example.com', system: {{file: ./inputs/{0}.txt}}}}\n"
    )
    (place / "recipe.yaml").write_text("models:\n" + "".join(model.format(i) for i in range(count)))


def write_dodo(place: Path, count: int) -> None:
    """The graph for doit."""
    (place / "dodo.py").write_text(
        "def task_model():\n"
        f"    for i in range({count}):\n"
        "        yield {'name': str(i), 'file_dep': [f'inputs/{i}.txt'], 'targets': [f'outputs/{i}'],\n"
        "               'actions': [f'cp inputs/{i}.txt outputs/{i}']}\n"
    )


def write_dvc(place: Path, count: int) -> None:
    """The graph for DVC."""
    stages = "".join(
        f"  m{i}:\n    cmd: cp inputs/{i}.txt outputs/{i}\n    deps: [inputs/{i}.txt]\n    outs: [outputs/{i}]\n"
        for i in range(count)
    )
    (place / "dvc.yaml").write_text("stages:\n" + stages)
    (place / ".dvc").mkdir()
    (place / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
    )


def write_snakefile(place: Path, count: int) -> None:
    """The graph for Snakemake."""
    (place / "Snakefile").write_text(
        f"rule all:\n    input: expand('outputs/{{i}}', i=range({count}))\n"
        "rule model:\n    input: 'inputs/{i}.txt'\n    output: 'outputs/{i}'\n    shell: 'cp {input} {output}'\n"
    )


def write_ninja(place: Path, count: int) -> None:
    """The graph for Ninja."""
    edges = "".join(f"build outputs/{i}: cp inputs/{i}.txt\n" for i in range(count))
    (place / "build.ninja").write_text("rule cp\n  command = cp $in $out\n" + edges)


def cpu_ms(command: list[str], place: Path, env: dict[str, str], rounds: int) -> float:
    """The least CPU time of several runs, user and system, in milliseconds."""
    best = float("inf")
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=place, env=env, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best * 1000


def measure(tool: Tool, count: int) -> float:
    """Build the graph with a tool, then measure doing it again."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "outputs").mkdir()
        (place / "inputs").mkdir()
        for number in range(count):
            (place / "inputs" / f"{number}.txt").write_text(f"Number {number}.")
        tool.write(place, count)
        for path in place.rglob("*"):
            os.utime(path, (LONG_AGO_S, LONG_AGO_S))
        env = os.environ | {
            "MODELBUILD_STORE": str(place / "models"),
            "MODELBUILD_CACHE": str(place / "cache"),
            "PYTHONPATH": str(ROOT) if tool.name == "modelbuild" else "",
            "HOME": name,
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        if tool.first:
            for number in range(count):
                (place / "outputs" / str(number)).write_text(f"Number {number}.")
        start = [tool.command[0], *tool.first] if tool.first else tool.command
        subprocess.run(start, cwd=place, env=env, check=True, capture_output=True)
        # Once more unmeasured: a tool may settle what was too young to be trusted.
        subprocess.run(tool.command, cwd=place, env=env, check=True, capture_output=True)
        return cpu_ms(tool.command, place, env, tool.rounds)


def peer_tools(environment: Path) -> list[Tool]:
    """The peers, installed into a directory unless they are there."""
    if not (environment / "bin" / "dvc").exists():
        venv.create(environment, with_pip=True)
        install = [
            str(environment / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*install, "doit", "dvc", "snakemake", "ninja"], check=True)
    bin_ = environment / "bin"
    return [
        Tool("doit", write_dodo, [str(bin_ / "doit")], 7),
        Tool("DVC", write_dvc, [str(bin_ / "dvc"), "repro", "--quiet"], 2, DVC_FIRST),
        Tool("Snakemake", write_snakefile, [str(bin_ / "snakemake"), "--quiet", "--cores", "1"], 2, SNAKEMAKE_FIRST),
        Tool("Ninja", write_ninja, [str(bin_ / "ninja")], 7),
    ]


def main() -> None:
    """Print the table; exit status 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", action="store_true", help="measure modelbuild only")
    parser.add_argument("--peers", type=Path, help="keep the peers' environment in this directory")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of models")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        own = Tool("modelbuild", write_recipe, [sys.executable, "-m", "modelbuild", "--progress", "quiet", "build"], 7)
        tools = [own] if chosen.alone else [own, *peer_tools(chosen.peers or Path(scratch))]
        sys.exit(1 if show(tools, chosen.counts) else 0)


def show(tools: list[Tool], counts: list[int]) -> list[str]:
    """Print one line per tool and number of models; returns what misses its limit."""
    env = dict(os.environ)
    bare = cpu_ms([sys.executable, "-c", "pass"], ROOT, env, 7)
    version = cpu_ms([sys.executable, "-m", "modelbuild", "--version"], ROOT, env, 7)
    print(f"python -c pass {bare:.0f} ms, modelbuild --version {version:.0f} ms")
    print(f"{'models':>6}  {'tool':<12}{'CPU ms':>8}{'modelbuild is':>18}")
    missed = []
    for count in counts:
        ours = measure(tools[0], count)
        print(f"{count:>6}  {'modelbuild':<12}{ours:>8.0f}", flush=True)
        for tool in tools[1:]:
            theirs = measure(tool, count)
            is_missed = ours > theirs * LIMITS.get(tool.name, float("inf"))
            missed += [f"{tool.name} {count}"] if is_missed else []
            mark = "  over the limit" if is_missed else ""
            print(f"{count:>6}  {tool.name:<12}{theirs:>8.0f}{ours / theirs:>14.2f} of it{mark}", flush=True)
    return missed


if __name__ == "__main__":
    main()
