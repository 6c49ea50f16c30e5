"""Runs a page of the documentation: writes the files it shows, types its commands, compares what they print.

A fenced block says what it is in its first line:

    ```yaml file=recipe.yaml     a file that the reader writes
    ```console                   commands after `$ `, each followed by what it prints
    ```console watch             the same for a command that goes on: what it prints first, and in later blocks what it
                                 prints after the reader has done what stands in between; `^C` ends it
    ```sh                        commands that need other programs; see `OTHER_PROGRAMS`

In what a command prints, a line `...` stands for any lines, and `…` within a line for any characters.
A comment `<!-- copy: PATH… -->` names files of the repository that the page assumes in the current directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelbuild.store.state import RACY_WINDOW_NS
from tests.space import ROOT, Space

FENCE = re.compile(
    r"^```(?P<language>\w+)(?: file=(?P<name>\S+)| (?P<goes_on>watch))?\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE
)
COPY = re.compile(r"<!-- copy: (.*?) -->", re.DOTALL)
COMMAND = re.compile(r"^\$ (?P<line>.*(?:(?<=\\)\n.*)*)\n(?P<shown>(?:(?!\$ ).*\n)*)", re.MULTILINE)
#: What `sh` blocks may start: programs that tests cannot count on.
OTHER_PROGRAMS = frozenset({"dask", "ollama", "llama-cli", "llama-server", "lms", "pip", "make", "git", "sudo"})
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
    with contextlib.closing(Session(space)) as session:
        return sum(_do(fence, space, session, page.name) for fence in FENCE.finditer(text))


def _do(fence: re.Match[str], space: Space, session: Session, page: str) -> int:
    """Do what one block says; the number of commands that ran."""
    if fence["name"]:
        space.write(fence["name"], fence["body"])
        return 0
    if fence["goes_on"]:
        session.follow(fence["body"])
        return 1
    shown = list(commands(fence["body"])) if fence["language"] == "console" else []
    for command in shown:
        printed = run_line(command.line, space)
        assert matches(command.shown, printed), f"{page}: $ {command.line}\n{printed}"
    return len(shown)


class Session:
    """A command that runs beside what the reader does."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._process: subprocess.Popen[bytes] | None = None
        self._printed = ""

    def follow(self, body: str) -> None:
        """Start what a block starts, wait for what it shows, end what it ends."""
        started = COMMAND.match(body)
        if started is not None:
            self.close()
            self._start(started["line"])
        before, is_ended, after = (started["shown"] if started is not None else body).partition("^C\n")
        self._wait_for(before)
        if is_ended:
            self._end(after)

    def close(self) -> None:
        """End what still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self, line: str) -> None:
        environment = _reader_environment(self._space) | {"PYTHONUNBUFFERED": "1"}
        self._printed = ""
        self._process = subprocess.Popen(
            ["sh", "-c", f"exec {line}"], cwd=self._space.root, env=environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def _wait_for(self, shown: str) -> None:
        deadline_s = time.monotonic() + 60
        while not matches(shown, self._printed) or not self._printed.endswith("\n"):
            assert time.monotonic() < deadline_s, f"shown:\n{shown}\nprinted:\n{self._printed}"
            time.sleep(0.02)
            self._read()
        time.sleep(0.5)  # nothing may come that is not shown
        self._read()
        assert matches(shown, self._printed), f"shown:\n{shown}\nprinted:\n{self._printed}"
        self._printed = ""

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._printed += (self._process.stdout.read() or b"").decode()

    def _end(self, shown: str) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGINT)
        rest, _ = self._process.communicate(timeout=60)
        assert matches(shown, rest.decode().lstrip("\n")), rest
        assert self._process.returncode == 130
        self._process = None


def commands(body: str) -> Iterator[Command]:
    """The commands of a console block."""
    for found in COMMAND.finditer(body):
        yield Command(found["line"], found["shown"])


def run_line(line: str, space: Space) -> str:
    """Both outputs of a command line, as a terminal shows them."""
    if line.startswith("modelbuild ") and not _SHELL & set(line):
        return space.run_merged(*shlex.split(line)[1:], env=LIMITED)
    done = subprocess.run(
        ["sh", "-c", line], cwd=space.root, env=_reader_environment(space), check=False, timeout=120, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout


def _reader_environment(space: Space) -> dict[str, str]:
    """Variables with which a shell finds the command."""
    directory = space.write("bin/modelbuild", f'#!/bin/sh\nexec "{sys.executable}" -m modelbuild "$@"\n').parent
    (directory / "modelbuild").chmod(0o755)
    environment = space.environment() | LIMITED
    environment["PATH"] = os.pathsep.join([str(directory), str(Path(sys.executable).parent), environment["PATH"]])
    return environment


#: A reader has no directories opened for recipes, and no terminal.
LIMITED = {"MODELBUILD_ALLOW_ROOT": ""}


#: What a slow machine prints between the lines of a build.
PROGRESS = re.compile(r"^(?:  |.+: )[0-9]+ % of .*\n", re.MULTILINE)


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
