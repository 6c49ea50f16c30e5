"""Runs a page of the documentation: writes the files it shows, types its commands, compares what they print.

A fenced block says what it is in its first line:

    ```yaml file=recipe.yaml     a file that the reader writes
    ```console                   commands after `$ `, each followed by what it prints
    ```sh                        commands that need other programs; see `OTHER_PROGRAMS`

In what a command prints, a line `...` stands for any lines, and `…` within a line for any characters.
A comment `<!-- copy: PATH… -->` names files of the repository that the page assumes in the current directory.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelbuild.store.state import RACY_WINDOW_NS
from tests.space import ROOT, Space

FENCE = re.compile(r"^```(?P<language>\w+)(?: file=(?P<name>\S+))?\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
COPY = re.compile(r"<!-- copy: (.*?) -->", re.DOTALL)
COMMAND = re.compile(r"^\$ (?P<line>.*(?:(?<=\\)\n.*)*)\n(?P<shown>(?:(?!\$ ).*\n)*)", re.MULTILINE)
#: What `sh` blocks may start: programs that tests cannot count on.
OTHER_PROGRAMS = frozenset({"ollama", "llama-cli", "llama-server", "lms", "pip", "make", "git"})
_SHELL = frozenset("|&;<>*$`#~")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line and the output that the page shows below it."""

    line: str
    shown: str


def run_page(page: Path, space: Space) -> int:
    """Do everything a page says, in order, below `space.root`; the number of commands that ran."""
    text = page.read_text("utf-8")
    for paths in COPY.findall(text):
        _copy(paths.split(), space.root)
        time.sleep(RACY_WINDOW_NS / 1e9)  # a reader has had these files for a while, so that records about them count
    count = 0
    for fence in FENCE.finditer(text):
        if fence["name"]:
            space.write(fence["name"], fence["body"])
        elif fence["language"] == "console":
            for command in commands(fence["body"]):
                printed = run_line(command.line, space)
                assert matches(command.shown, printed), f"{page.name}: $ {command.line}\n{printed}"
                count += 1
    return count


def commands(body: str) -> Iterator[Command]:
    """The commands of a console block."""
    for found in COMMAND.finditer(body):
        yield Command(found["line"], found["shown"])


def run_line(line: str, space: Space) -> str:
    """Both outputs of a command line, as a terminal shows them."""
    if line.startswith("modelbuild ") and not _SHELL & set(line):
        return space.run_merged(*shlex.split(line)[1:], env=LIMITED)
    directory = space.write("bin/modelbuild", f'#!/bin/sh\nexec "{sys.executable}" -m modelbuild "$@"\n').parent
    (directory / "modelbuild").chmod(0o755)
    environment = space.environment() | LIMITED
    environment["PATH"] = os.pathsep.join([str(directory), str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        ["sh", "-c", line], cwd=space.root, env=environment, check=False, timeout=120, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout


#: A reader has no directories opened for recipes, and no terminal.
LIMITED = {"MODELBUILD_ALLOW_ROOT": ""}


#: What a slow machine prints between the lines of a build.
PROGRESS = re.compile(r"^  [0-9]+ % of .*\n", re.MULTILINE)


def matches(shown: str, printed: str) -> bool:
    """Whether a command printed what the page shows."""
    printed = PROGRESS.sub("", printed)
    pattern = ""
    for line in shown.splitlines():
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(map(re.escape, line.rstrip().split("…"))) + r"[ ]*\n"
    return re.fullmatch(pattern, printed + ("" if printed.endswith("\n") or not printed else "\n")) is not None


def _copy(paths: list[str], target: Path) -> None:
    for name in paths:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / source.name)
        else:
            shutil.copy(source, target)
