"""Writes docs/cli.md from the commands themselves.

usage: python docs/generate_cli_reference.py [--check]
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.generated_page import write_page
from modelbuild.cli.main import COMMANDS, cli
from modelbuild.cli.settings import settings_options

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"
HEAD = """# Commands

<!-- Written by docs/generate_cli_reference.py from the commands; edit their texts instead. -->

`modelbuild COMMAND --help` prints the same. Every command also takes these options, before or after its name:

"""
#: What the program reads from its environment, or gives to commands that it starts.
ENVIRONMENT = {
    "MODELBUILD_STORE, OLLAMA_MODELS": "the models directory, where `--store` is not given; else `~/.ollama/models`",
    "MODELBUILD_CACHE": "the cache, where `--cache` is not given; else in `XDG_CACHE_HOME` or `~/.cache`",
    "MODELBUILD_ALLOW_ROOT": "directories that recipes may read besides their own, separated by colons",
    "MODELBUILD_KERNELS": "what packs weights: `auto`, or one of those that `doctor` lists, such as `numpy`",
    "MODELBUILD_REGISTRY_PASSWORD": "the password that belongs to `--username` of `pull` and `push`",
    "MODELBUILD_MODELS": "the models that were built, for the command of `watch --exec`",
    "MODELBUILD_DEBUG": "show where an internal error came from",
    "OLLAMA_HOST, OLLAMA_ORIGINS": "where `serve` and `watch --serve` listen, and which pages they answer",
    "OLLAMA_NOPRUNE": "keep blobs that a replaced model leaves behind",
    "OLLAMA_GO_TEMPLATE": "with 0, `serve` describes models by the template in their weights, not by their Go template",
    "CI": "progress is plain text, on a terminal, too",
}
TAIL = """
Exit status: 0 done, 1 failed, 2 bad recipe or usage, 3 work pending (`plan --exit-code`), 4 drift (`build --locked`),
130 interrupted.

## Environment

{environment}
## Shell completion

Put the line for your shell at the end of its start file:

| shell | start file | line |
|---|---|---|
| bash | `~/.bashrc` | `eval "$(_MODELBUILD_COMPLETE=bash_source modelbuild)"` |
| zsh | `~/.zshrc` | `autoload -Uz compinit && compinit; eval "$(_MODELBUILD_COMPLETE=zsh_source modelbuild)"` |
| fish | `~/.config/fish/config.fish` | `_MODELBUILD_COMPLETE=fish_source modelbuild \\| source` |

Commands, options, stored models and the models of the recipe are completed.

## Manual

`man modelbuild` shows this page where `pip install` put it on the manual's path (`share/man` of the environment);
`man -l docs/modelbuild.1` in a checkout.
"""


def reference() -> str:
    """The page: the common options, then every command with its arguments and options."""
    common = click.Command("common", params=common_options())
    names = {option.name for option in common.params}
    parts = [HEAD, *_options(common.params)]
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        parts += _command(name, summary, command, names)
    return "".join([*parts, TAIL.format(environment=_environment())])


def _environment() -> str:
    return "| variable | meaning |\n|---|---|\n" + "".join(
        f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {text} |\n" for names, text in ENVIRONMENT.items()
    )


def common_options() -> list[click.Parameter]:
    """The options that every command takes."""

    @click.command
    @settings_options
    def holder() -> None:
        """Carries the options."""

    return holder.params


def _command(name: str, summary: str, command: click.Command, common: set[str | None]) -> Iterator[str]:
    context = click.Context(command, info_name=f"modelbuild {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    yield f"\n## {name}\n\n{_paragraphs(inspect.cleandoc(command.help or summary))}\n"
    yield f"\n```text\n{' '.join(usage.split())}\n```\n"
    options = [item for item in command.params if isinstance(item, click.Option) and item.name not in common]
    if options:
        yield "\n"
        yield from _options(options)


def _options(options: list[click.Parameter]) -> Iterator[str]:
    yield "| option | meaning |\n|---|---|\n"
    for option in options:
        record = option.get_help_record(click.Context(click.Command("any")))
        if record is not None:
            names, text = (" ".join(part.split()).replace("|", "\\|") for part in record)
            yield f"| `{names}` | {text} |\n"


def _paragraphs(text: str) -> str:
    return "\n\n".join(map(_paragraph, text.split("\n\n")))


def _paragraph(text: str) -> str:
    if text.startswith("\b\n"):  # its lines stay lines
        return f"```text\n{textwrap.dedent(text[2:])}\n```"
    return " ".join(text.split()).replace("<", "&lt;")


def main() -> int:
    """Write the page, or with --check compare it; the exit status."""
    return write_page(PAGE, reference())


if __name__ == "__main__":
    sys.exit(main())
