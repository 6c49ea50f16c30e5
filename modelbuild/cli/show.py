"""`modelbuild show`: one model of the store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from modelbuild.cli.render import format_size
from modelbuild.cli.settings import current_settings, settings_options

if TYPE_CHECKING:
    from modelbuild.engine.describe import ModelDetails

_PARTS = ("template", "system", "license", "parameters")


@click.command(name="show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
@click.option("--template", "part", flag_value="template", help="Only the template, raw.")
@click.option("--system", "part", flag_value="system", help="Only the system prompt, raw.")
@click.option("--license", "part", flag_value="license", help="Only the licences, raw.")
@click.option("--parameters", "part", flag_value="parameters", help="Only the parameters.")
@settings_options
@click.pass_context
def command(context: click.Context, name: str, *, as_json: bool, part: str | None) -> None:
    """Show the model NAME of the store: what it is made of and what it was given."""
    from modelbuild.engine.describe import describe_model
    from modelbuild.model_name import parse_name
    from modelbuild.store.store import Store

    details = describe_model(Store(current_settings(context).store), parse_name(name))
    if as_json:
        click.echo(json.dumps(details.to_json(), indent=2, ensure_ascii=False))
    elif part is not None:
        click.echo(_part(details, part), nl=part == "parameters")
    else:
        _show(details)


def _part(details: ModelDetails, part: str) -> str:
    if part == "parameters":
        return "\n".join(f"{key}: {json.dumps(value)}" for key, value in details.parameters.items())
    return "\n".join(details.licenses) if part == "license" else str(getattr(details, part))


def _show(details: ModelDetails) -> None:
    config = details.config
    rows = [
        ("model", details.name),
        ("digest", details.digest),
        ("architecture", config.model_family),
        ("parameters", config.model_type),
        ("quantization", config.file_type),
        ("size", format_size(details.manifest.size_bytes)),
        ("remote host", config.remote_host),
        ("remote model", config.remote_model),
        ("renderer", config.renderer),
        ("parser", config.parser),
        ("requires", config.requires),
        ("capabilities", ", ".join(config.capabilities)),
        ("system", _printable(details.system)),
        ("template", _printable(details.template)),
        *(("parameter", f"{key} = {json.dumps(value)}") for key, value in details.parameters.items()),
    ]
    for label, value in rows:
        if value:
            click.echo(f"{label:<14}{value}")
    for layer in details.manifest.layers:
        origin = f"  from {_printable(layer.from_)}" if layer.from_ else ""
        click.echo(f"{'layer':<14}{layer.kind:<10}{layer.digest[7:19]}  {format_size(layer.size_bytes)}{origin}")


def _printable(text: str) -> str:
    from modelbuild.errors import printable

    return printable(text)
