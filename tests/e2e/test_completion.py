"""Completion in shells: what is offered, and that bash, zsh and fish put it on the line."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time

import pytest

from tests.space import ROOT, Space

RECIPE = "models:\n  a: {from: 'big:1', remote_host: 'https://models.example.com', model: 'acme/one:2'}\n"
PATIENCE_S = 60.0
#: How each shell is started without anybody's settings, and what it prints when it waits.
SHELLS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}


@pytest.fixture
def stocked(space: Space) -> Space:
    """A store that has the model acme/one:2, and the recipe that made it."""
    space.recipe(RECIPE)
    space.build()
    return space


def complete(space: Space, words: str) -> list[str]:
    """What a shell is told to offer for the last word."""
    done = space.spawn(env={"_MODELBUILD_COMPLETE": "bash_complete", "COMP_WORDS": words})
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completion(stocked: Space) -> None:
    """Commands, options, and the names of stored models."""
    assert ["validate", "verify"] == complete(stocked, "modelbuild v")
    assert ["--link", "--locked"] == sorted(complete(stocked, "modelbuild build --l"))
    assert ["acme/one:2"] == complete(stocked, "modelbuild show ac")
    assert ["acme/one:2"] == complete(stocked, "modelbuild show ")
    assert [] == complete(stocked, "modelbuild show b")
    assert [] == complete(stocked, f"modelbuild --store {stocked.root}/recipe.yaml show a")


def test_models_of_a_recipe(stocked: Space) -> None:
    """A command that builds some models of a recipe is offered their keys and names, and nothing while it is broken."""
    assert ["a", "acme/one:2"] == complete(stocked, "modelbuild build recipe.yaml ")
    assert ["acme/one:2"] == complete(stocked, "modelbuild explain ac")
    stocked.recipe("models: {a: {form: b}}\n")
    assert [] == complete(stocked, "modelbuild plan recipe.yaml a")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(space: Space, shell: str) -> None:
    """The line of the documentation gives a script that the shell accepts."""
    program = _program(shell)
    done = space.spawn(env={"_MODELBUILD_COMPLETE": f"{shell}_source"})
    assert "_MODELBUILD_COMPLETE" in done.stdout
    script = space.write("script", done.stdout)

    read = subprocess.run([program, "-n", str(script)], check=False, capture_output=True, text=True, timeout=60)

    assert (0, "") == (read.returncode, read.stderr)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("typed", "expected"),
    [("modelbuild doc", "modelbuild doctor"), ("modelbuild show acme/one:", "modelbuild show acme/one:2")],
)
def test_a_word_is_completed(stocked: Space, shell: str, typed: str, expected: str) -> None:
    """With the documented line in force, the tabulator key completes commands, and names beyond their colon."""
    program, line = _program(shell), _documented_line(shell)

    shown = _type([program, *SHELLS[shell]], _environment(stocked), line, typed, expected)

    assert expected in shown


def test_completion_in_fish(stocked: Space) -> None:
    """fish shows what each command does."""
    script = f'{_documented_line("fish")}; complete -C "modelbuild doc"; complete -C "modelbuild show acme/one:"'

    done = subprocess.run(
        [_program("fish"), "--no-config", "-c", script],
        env=_environment(stocked), cwd=stocked.root, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert ("doctor\tShow what this installation can do.\nacme/one:2\n", "") == (done.stdout, done.stderr)


def _program(shell: str) -> str:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    return program


def _documented_line(shell: str) -> str:
    """What docs/cli.md tells the users of a shell to put into its start file."""
    row = re.search(rf"^\| {shell} \| .* \| `(.+)` \|$", (ROOT / "docs" / "cli.md").read_text("utf-8"), re.MULTILINE)
    assert row is not None
    return row[1].replace("\\|", "|")


def _environment(space: Space) -> dict[str, str]:
    command = space.write("bin/modelbuild", f'#!/bin/sh\nexec "{sys.executable}" -m modelbuild "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    # Nothing of what runs the tests: its prompt, its terminal or its language would be seen.
    ours = {name: text for name, text in space.environment().items() if name.startswith(("MODELBUILD_", "PYTHON"))}
    return ours | {"PATH": path, "HOME": str(space.root), "TERM": "dumb", "COLUMNS": "200", "LC_ALL": "C.UTF-8"}


def _type(program: list[str], environment: dict[str, str], line: str, typed: str, awaited: str) -> str:
    """What a shell on a terminal of its own shows after a line, some words and the tabulator key."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        program, cwd=environment["HOME"], env=environment, stdin=inside, stdout=inside, stderr=inside,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(inside)
    try:
        os.write(terminal, f"{line}\necho rea''dy\n".encode())
        _read_until(terminal, "ready\r\n")
        os.write(terminal, f"{typed}\t".encode())
        return _read_until(terminal, awaited)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def _read_until(terminal: int, awaited: str) -> str:
    shown, deadline_s = "", time.monotonic() + PATIENCE_S
    while awaited not in shown:
        assert time.monotonic() < deadline_s, shown
        if select.select([terminal], [], [], 0.5)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown
