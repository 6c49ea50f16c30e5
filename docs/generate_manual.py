"""Writes docs/modelbuild.1, the page of `man modelbuild`, from the commands themselves.

usage: python docs/generate_manual.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.generate_cli_reference import ENVIRONMENT, common_options
from docs.generated_page import write_page
from modelbuild.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "modelbuild.1"
HEAD = r"""'\" t
.\" Written by docs/generate_manual.py from the commands; edit their texts instead.
.TH MODELBUILD 1 "" modelbuild "User Commands"
.SH NAME
modelbuild \- build local language models from version-controlled recipes
.SH SYNOPSIS
.B modelbuild
.RI [ OPTIONS ]
.I COMMAND
.RI [ ARGS ]...
.SH DESCRIPTION
A recipe is a YAML file that names weights, a quantization, adapters, a template, a system prompt, parameters and a
licence.
.B modelbuild build
makes of it a model in an Ollama models directory, and does nothing twice.
.SH OPTIONS
Every command takes these, before or after its name.
"""
TAIL = r""".SH EXIT STATUS
.TS
l lx.
0	done
1	failed
2	bad recipe or usage
3	work pending (\fBplan \-\-exit\-code\fR)
4	drift (\fBbuild \-\-locked\fR)
130	interrupted
.TE
.SH ENVIRONMENT
{environment}.SH FILES
.TP
.I recipe.yaml
The recipe that commands read when none is named.
.TP
.I recipe.lock
Digests of inputs and results; see \fBbuild \-\-update\-lock\fR.
.SH SEE ALSO
.BR ollama (1)
"""


def manual() -> str:
    """The page in the man macros of troff."""
    common = common_options()
    names = {option.name for option in common}
    parts = [HEAD, *_options(common), ".SH COMMANDS\n"]
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        parts += _command(name, summary, command, names)
    return "".join([*parts, TAIL.replace("{environment}", "".join(_environment()))])


def _environment() -> Iterator[str]:
    for names, text in ENVIRONMENT.items():
        yield f".TP\n.B {names}\n{_text(text.replace('`', ''))[0].upper()}{_text(text.replace('`', ''))[1:]}.\n"


def _command(name: str, summary: str, command: click.Command, common: set[str | None]) -> Iterator[str]:
    usage = command.get_usage(click.Context(command, info_name=f"modelbuild {name}")).removeprefix("Usage: ")
    yield f".SS {_text(' '.join(usage.split()))}\n"
    yield "\n.PP\n".join(_paragraphs(inspect.cleandoc(command.help or summary))) + "\n"
    yield from _options(item for item in command.params if item.name not in common)


def _options(options: Iterable[click.Parameter]) -> Iterator[str]:
    context = click.Context(click.Command("any"))
    for option in options:
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            yield f".TP\n.B {_text(record[0])}\n{_text(' '.join(record[1].split()))}\n"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b\n"):  # its lines stay lines
            yield f".nf\n{_text(paragraph[2:])}\n.fi"
        else:
            yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Text in which troff sees no commands, and a dash is the one that can be typed."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", escaped, flags=re.MULTILINE)


def main() -> int:
    """Write the page, or with --check compare it; the exit status."""
    return write_page(PAGE, manual())


if __name__ == "__main__":
    sys.exit(main())
