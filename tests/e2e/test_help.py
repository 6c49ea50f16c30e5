"""`--help`, the program's name, and completion in shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild.cli.main import COMMANDS
from tests.space import Space

#: What every help text fits into: a small terminal window, and half of a large one.
LINES, COLUMNS = 40, 80


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen(space: Space, command: str) -> None:
    """Nobody has to scroll to read what a command does."""
    done = space.run(*command.split(), "--help", env={"COLUMNS": str(COLUMNS)})

    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Usage: modelbuild {command}".rstrip())
    assert LINES >= len(lines)
    assert [] == [line for line in lines if len(line) > COLUMNS]


def test_the_program_has_one_name(space: Space) -> None:
    """`python -m modelbuild` calls itself what the user would type."""
    assert space.spawn("build", "--help").stdout.startswith("Usage: modelbuild build ")
    assert "Usage: modelbuild " in space.spawn("no-such-command").stderr


def complete(space: Space, words: str) -> list[str]:
    """What a shell is told to offer for the last word."""
    environment = {"_MODELBUILD_COMPLETE": "bash_complete", "COMP_WORDS": words}
    done = space.spawn(env=environment | {"COMP_CWORD": str(len(words.split(" ")) - 1)})
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completion(space: Space) -> None:
    """Commands, options, and the names of stored models."""
    space.recipe("models:\n  a: {from: 'big:1', remote_host: 'https://models.example.com', model: 'acme/one:2'}\n")
    space.build()

    assert ["validate", "verify"] == complete(space, "modelbuild v")
    assert ["--link", "--locked"] == sorted(complete(space, "modelbuild build --l"))
    assert ["acme/one:2"] == complete(space, "modelbuild show ac")
    assert [] == complete(space, "modelbuild show b")
    assert [] == complete(space, f"modelbuild --store {space.root}/recipe.yaml show a")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(space: Space, tmp_path: Path, shell: str) -> None:
    """The line of the documentation gives a script that the shell accepts."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = space.spawn(env={"_MODELBUILD_COMPLETE": f"{shell}_source"})
    assert "_MODELBUILD_COMPLETE" in done.stdout
    (tmp_path / "modelbuild").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m modelbuild "$@"\n')
    (tmp_path / "modelbuild").chmod(0o755)
    script = tmp_path / "script"
    script.write_text(done.stdout)
    environment = space.environment() | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    read = subprocess.run(
        [program, "-n", str(script)], env=environment, check=False, capture_output=True, text=True, timeout=60
    )

    assert (0, "") == (read.returncode, read.stderr)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_completion_in_bash(space: Space, tmp_path: Path) -> None:
    """Evaluated in a real shell, completion offers what matches."""
    (tmp_path / "modelbuild").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m modelbuild "$@"\n')
    (tmp_path / "modelbuild").chmod(0o755)
    environment = space.environment() | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    script = (
        'eval "$(_MODELBUILD_COMPLETE=bash_source modelbuild)"; COMP_WORDS=(modelbuild doc); COMP_CWORD=1; '
        '$(complete -p modelbuild | sed "s/.*-F \\([^ ]*\\) .*/\\1/") modelbuild doc modelbuild; echo "${COMPREPLY[@]}"'
    )

    done = subprocess.run(
        ["bash", "-c", script], env=environment, check=False, capture_output=True, text=True, timeout=60
    )

    assert ("doctor\n", "") == (done.stdout, done.stderr)


def test_a_mistyped_command_is_told_what_is_near(space: Space) -> None:
    """Letters swapped: the command that was meant is named, and the status is that of wrong usage."""
    done = space.spawn("buidl")

    assert 2 == done.status
    assert "no command 'buidl'; did you mean 'build'?" in done.stderr


def test_a_missing_recipe(space: Space) -> None:
    """Who has no recipe yet learns how to get one, and who mistyped its name which one may be meant."""
    assert "hint: modelbuild init SOURCE" in space.run("build").stderr
    space.write("recipe.yml", "model: m\nfrom: b\n")
    assert "hint: did you mean recipe.yml?" in space.run("plan").stderr
