"""`modelbuild doctor`: what this installation can do, for users and for reports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from modelbuild.cli.render import format_size
from modelbuild.cli.settings import current_settings, settings_options

if TYPE_CHECKING:
    from modelbuild.engine.diagnose import Diagnosis, Kernels, Place


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@settings_options
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """Show versions, extras, directories and what their file systems can do, and which kernels pack weights."""
    from modelbuild.engine.diagnose import diagnose

    settings = current_settings(context)
    diagnosis = diagnose([("store", settings.store), ("cache", settings.cache)])
    if as_json:
        click.echo(json.dumps(diagnosis.to_json(), indent=2))
        return
    for name, text in _lines(diagnosis):
        click.echo(f"{name:12}{text}".rstrip())
    for hint in diagnosis.hints():
        click.echo(f"hint: {hint}", err=True)


def _lines(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    versions = [f"{name} {version or 'not installed'}" for name, version in diagnosis.distributions.items()]
    extras = [extra if is_there else f"{extra} not installed" for extra, is_there in diagnosis.extras.items()]
    return [
        ("modelbuild", diagnosis.modelbuild),
        ("python", diagnosis.python),
        ("system", diagnosis.system),
        ("packages", ", ".join(versions)),
        ("extras", ", ".join(extras)),
        *((place.role, _describe_place(place)) for place in diagnosis.places),
        ("processor", diagnosis.kernels.processor),
        ("kernels", _describe_kernels(diagnosis.kernels)),
    ]


def _describe_place(place: Place) -> str:
    facts = [] if place.exists else ["not there yet"]
    if place.free_bytes is not None:
        facts.append(f"{format_size(place.free_bytes)} free")
    if place.reflink is None:
        facts.append("not writable")
    else:
        facts.append("reflink" if place.reflink else "no reflink")
        facts.append("hard link" if place.hard_link else "no hard link")
    return f"{place.path} ({', '.join(facts)})"


def _describe_kernels(kernels: Kernels) -> str:
    found = f"; this machine has {', '.join(kernels.available)}" if kernels.available else ""
    fallback = f"; by numpy: {', '.join(kernels.fallback_types)}" if kernels.fallback_types else ""
    return f"{kernels.active}: {kernels.reason}{found}{fallback}"
