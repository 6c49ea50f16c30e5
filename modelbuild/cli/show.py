"""`modelbuild show`: one model of the store."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from modelbuild.cli.complete_names import complete_stored
from modelbuild.cli.render import format_size
from modelbuild.cli.settings import current_settings, settings_options
from modelbuild.errors import UsageError

if TYPE_CHECKING:
    from modelbuild.engine.describe import ModelDetails
    from modelbuild.engine.model_answers import ShownFacts
    from modelbuild.store.store import Store


@click.command(name="show")
@click.argument("name", shell_complete=complete_stored)
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
@click.option("--modelfile", is_flag=True, help="As a Modelfile that makes the model again.")
@click.option("--template", is_flag=True, help="Only the template.")
@click.option("--system", is_flag=True, help="Only the system prompt.")
@click.option("--license", is_flag=True, help="Only the licences.")
@click.option("--parameters", is_flag=True, help="Only the parameters, a JSON value each.")
@click.option("--raw", is_flag=True, help="Texts to the byte, terminal control characters included.")
@settings_options
@click.pass_context
def command(context: click.Context, /, name: str, *, as_json: bool, raw: bool, **parts: bool) -> None:
    """Show the model NAME of the store: what it is made of and what it was given."""
    from modelbuild.engine.describe import describe_model
    from modelbuild.engine.model_answers import shown_facts
    from modelbuild.engine.stored import find_name
    from modelbuild.store.store import Store

    part = _only(parts | {"json": as_json})
    if raw and part in (None, "json"):
        raise UsageError(
            "USAGE", "--raw is for one text of a model", hint="add --template, --system or another of them"
        )
    store = Store(current_settings(context).store)
    details = describe_model(store, find_name(store, name))
    if as_json:
        click.echo(json.dumps(details.to_json() | shown_facts(store, details).to_json(), indent=2))
    elif part is not None:
        text = _part(details, part, store)
        # In a pipe a text ends where it ends; on a terminal the next prompt wants a line of its own.
        ends_line = part == "parameters" or (sys.stdout.isatty() and not text.endswith("\n"))
        click.echo(text if raw else _safe_lines(text), nl=ends_line)
    else:
        _show(details, shown_facts(store, details))


def _only(parts: dict[str, bool]) -> str | None:
    """The part that was asked for; UsageError for several, whose texts could not be told apart."""
    chosen = [name for name in sorted(parts) if parts[name]]
    if len(chosen) > 1:
        *others, last = (f"--{name}" for name in chosen)
        raise UsageError("USAGE", f"only one of {', '.join(others)} and {last} can be given", hint="--json shows all")
    return chosen[0] if chosen else None


def _part(details: ModelDetails, part: str, store: Store) -> str:
    if part == "modelfile":
        from modelbuild.engine.show_modelfile import modelfile_of

        text, notes = modelfile_of(details, store)
        for note in notes:
            click.echo(f"note: left out: {note}", err=True)
        return f"# {details.name} of {store.root}\n\n{text}"
    if part == "parameters":
        return "\n".join(f"{key}: {json.dumps(value)}" for key, value in details.parameters.items())
    return "\n".join(details.licenses) if part == "license" else str(getattr(details, part))


def _show(details: ModelDetails, facts: ShownFacts) -> None:
    config = details.config
    if len(details.manifest.of_kind("template")) > 1:
        click.echo("warning: the model has several template layers; the last one counts", err=True)
    rows = [
        ("model", details.name),
        ("digest", details.digest),
        ("architecture", config.model_family),
        ("parameters", config.model_type),
        ("quantization", config.file_type),
        ("context", f"{facts.context_length} tokens" if facts.context_length else ""),
        ("embedding", str(facts.embedding_length or "")),
        ("size", format_size(details.manifest.size_bytes)),
        ("remote host", config.remote_host),
        ("remote model", config.remote_model),
        ("renderer", config.renderer),
        ("parser", config.parser),
        ("requires", config.requires),
        ("capabilities", ", ".join(facts.capabilities)),
        ("system", details.system),
        ("template", details.template),
        *(("parameter", f"{key} = {json.dumps(value)}") for key, value in details.parameters.items()),
        *(
            ("message", f"{item.get('role')}: {item.get('content')}")
            for item in details.messages
            if isinstance(item, dict)
        ),
        *(("license", text.strip().partition("\n")[0]) for text in details.licenses),
    ]
    for label, value in rows:
        if value:
            click.echo(f"{label:<14}{_safe(value)}")
    for layer in details.manifest.layers:
        origin = f"  from {_safe(layer.from_)}" if layer.from_ else ""
        click.echo(f"{'layer':<14}{_safe(layer.kind):<10}{layer.digest[7:19]}  {format_size(layer.size_bytes)}{origin}")


def _safe(text: str) -> str:
    from modelbuild.errors import printable

    return printable(text)


def _safe_lines(text: str) -> str:
    """Several lines of untrusted text for a terminal; tabs and line ends stay."""
    from modelbuild.errors import printable

    lines = ("\t".join(printable(part, len(part)) for part in line.split("\t")) for line in text.split("\n"))
    return "\n".join(lines)
