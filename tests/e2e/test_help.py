"""`--help`, the program's name, and what is said of what was mistyped."""

from __future__ import annotations

import pytest

from modelbuild.cli.main import COMMANDS, PURPOSES
from tests.space import Space

#: What every help text fits into: the smallest terminal window, with a line left for the next command.
LINES, COLUMNS = 23, 80


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen(space: Space, command: str) -> None:
    """Nobody has to scroll to read what a command does."""
    done = space.run(*command.split(), "--help", env={"COLUMNS": str(COLUMNS)})

    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Usage: modelbuild {command}".rstrip())
    assert LINES >= len(lines)
    assert [] == [line for line in lines if len(line) > COLUMNS]


def test_help_names_every_command_once() -> None:
    """The list by purpose leaves none out, and no command is in two places."""
    assert sorted(COMMANDS) == sorted(name for names, _ in PURPOSES for name in names.split())


def test_the_program_has_one_name(space: Space) -> None:
    """`python -m modelbuild` calls itself what the user would type."""
    assert space.spawn("build", "--help").stdout.startswith("Usage: modelbuild build ")
    assert "Usage: modelbuild " in space.spawn("no-such-command").stderr


def test_a_mistyped_command_is_told_what_is_near(space: Space) -> None:
    """Letters swapped: the command that was meant is named, and the status is that of wrong usage."""
    done = space.spawn("buidl")

    assert 2 == done.status
    assert "no command 'buidl'; did you mean 'build'?" in done.stderr


def test_a_missing_recipe(space: Space) -> None:
    """Who has no recipe yet learns how to get one, and who mistyped its name which one may be meant."""
    assert "hint: 'modelbuild init SOURCE'" in space.run("build").stderr
    space.write("recipe.yml", "model: m\nfrom: b\n")
    assert "hint: did you mean recipe.yml?" in space.run("plan").stderr
