"""`modelbuild render`: the exact prompt that a model would get."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from pathlib import Path

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.settings import current_settings, settings_options
from modelbuild.errors import InputError, UsageError

_THINK: dict[str, bool | str] = {
    "true": True,
    "false": False,
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
}


@click.command(name="render")
@click.argument("source", metavar="NAME_OR_PATH", shell_complete=complete_stored)
@click.option("--messages", metavar="FILE", help="Messages as JSON; - reads standard input.")
@click.option("--prompt", default="", metavar="TEXT", help="One message of the user instead.")
@click.option("--suffix", default="", metavar="TEXT", help="With --prompt: what stands after the gap to be filled.")
@click.option("--system", metavar="TEXT", help="In place of the model's own system prompt.")
@click.option("--tools", metavar="FILE", help="Tools as JSON.")
@click.option("--think", type=click.Choice(list(_THINK)), is_flag=False, flag_value="true", metavar="LEVEL",
              help="Thinking: true, false, low, medium, high or max.")  # fmt: skip
@click.option("--jinja", "use_jinja", is_flag=True,
              help="The model's own Jinja chat template, in a sandbox.")  # fmt: skip
@click.option("--raw", is_flag=True, help="Write control characters as they are.")
@click.option("--json", "as_json", is_flag=True, help="Prompt and origin of the template as one JSON object.")
@settings_options
@click.pass_context
def command(
    context: click.Context, source: str, *, messages: str | None, prompt: str, suffix: str, system: str | None,
    tools: str | None, think: str | None, use_jinja: bool, raw: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show the prompt that a stored model, or a template, GGUF or checkpoint at a path, makes of a conversation.

    A path starts with ./, ../, / or ~. The prompt is written as it is, without a line end added.
    """
    from modelbuild.engine.prompt_source import find_prompt_source
    from modelbuild.engine.show_prompt import PromptRequest, show_prompt
    from modelbuild.store.store import Store

    if raw and as_json:
        raise UsageError(
            "USAGE", "--raw is for a prompt alone; JSON has escapes of its own", hint="leave out one of the two"
        )
    found = find_prompt_source(source, Store(current_settings(context).store), use_jinja=use_jinja)
    request = PromptRequest(
        _read_json(messages), prompt, suffix, system, _read_json(tools), None if think is None else _THINK[think]
    )
    try:
        text = show_prompt(found, request, now=dt.datetime.now())  # templates show the user's own date
    except InputError as error:
        field = (error.key or "").partition("[")[0]
        error.path = error.path or {"messages": messages, "tools": tools}.get(field)
        raise
    if as_json:
        record = {"template": found.note, "kind": "jinja" if found.is_jinja else "go", "prompt": text}
        click.echo(json.dumps(record, indent=2))
    else:
        sys.stdout.write(text if raw else _visible(text))  # click.echo would drop what looks like a colour


def _read_json(name: str | None) -> object:
    """The JSON document in a file, or on standard input."""
    from modelbuild.formats.files import open_input
    from modelbuild.formats.json_text import FILE_LIMIT_BYTES, parse_json

    if name is None:
        return None
    path = Path("standard input" if name == "-" else name)
    if name == "-":
        data = sys.stdin.buffer.read(FILE_LIMIT_BYTES + 1)
    else:
        with open_input(path) as file:
            data = file.read_at(0, min(file.size_bytes, FILE_LIMIT_BYTES + 1))
    if len(data) > FILE_LIMIT_BYTES:
        raise InputError("LIMIT", f"more than {FILE_LIMIT_BYTES:,} bytes", path=path)
    return parse_json(data, path=path)


def _visible(text: str) -> str:
    """The text with control characters escaped, except line ends and tabs."""
    from modelbuild.errors import printable

    return "".join(part if part in ("\n", "\t") else printable(part, len(part)) for part in re.split(r"([\n\t])", text))
