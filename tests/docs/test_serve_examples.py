"""The systemd unit and the Dockerfile of docs/serve.md, as far as it can be told without their daemons."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest

from modelbuild.cli.serve import command
from tests.space import ROOT

PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")


def _block(first_line: str) -> str:
    """The indented block that begins with a line, without the indentation."""
    found = re.search(rf"^    {re.escape(first_line)}\n(?:    .*\n|\n(?=    ))*", PAGE, re.MULTILINE)
    assert found is not None
    return textwrap.dedent(found[0])


def _check_options(words: list[str]) -> None:
    """The command line has only options that `serve` has."""
    assert ["modelbuild", "serve"] == [Path(words[0]).name, words[1]]
    command.make_parser(click.Context(command)).parse_args(words[2:])


def test_both_start_the_server_with_options_it_has() -> None:
    """A renamed option breaks no service unnoticed."""
    start = re.search(r"^ExecStart=(.*)$", _block("[Unit]"), re.MULTILINE)
    last = re.search(r"^CMD (.*)$", _block("FROM python:3.13-slim"), re.MULTILINE)

    assert start is not None
    assert last is not None
    _check_options(shlex.split(start[1]))
    _check_options(json.loads(last[1]))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """No unknown setting, no setting in the wrong section."""
    program = tmp_path / "modelbuild"
    program.symlink_to(sys.executable)
    unit = tmp_path / "modelbuild.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", _block("[Unit]"), flags=re.MULTILINE))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )

    assert [] == [line for line in done.stderr.splitlines() if str(unit) in line]


def test_the_volumes_belong_to_the_user_of_the_container() -> None:
    """A volume takes its owner from the directory in the image; one that is not there yet would belong to root."""
    text = _block("FROM python:3.13-slim")

    (made,) = re.findall(r"install -d -o (\S+) (.+)$", text, re.MULTILINE)
    (volumes,) = re.findall(r"^VOLUME (.+)$", text, re.MULTILINE)
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == [made[0]]
    assert made[1].split() == volumes.split()
    assert text.index("install -d") < text.index("USER") < text.index("VOLUME")
