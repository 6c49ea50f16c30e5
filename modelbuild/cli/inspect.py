"""`modelbuild inspect`: what a checkpoint, GGUF, adapter or importance matrix is, and what a build would do with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelbuild.cli.render import format_size

if TYPE_CHECKING:
    from modelbuild.engine.inspection import Fact, Inspection

EXIT_PROBLEMS = 1
_LABEL_WIDTH = 18


@click.command(name="inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
def command(path: Path, *, as_json: bool) -> int:
    """Say what stands at PATH and what a build would make of it; reads headers and small files, never weights.

    PATH is a checkpoint directory, a GGUF file of any kind, a directory of them, a LoRA adapter or an importance
    matrix. The exit status is 1 when a build would fail.
    """
    from modelbuild.engine.inspect import inspect_path

    found = inspect_path(path)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        for line in _lines(found):
            click.echo(line)
    return EXIT_PROBLEMS if found.problems else 0


def _lines(found: Inspection) -> Iterator[str]:
    from modelbuild.errors import printable

    yield f"{printable(str(found.path), 4096)}: {found.kind}"
    for name, value in found.facts.items():
        label = name.removesuffix("_bytes").replace("_", " ")
        yield f"  {label:<{_LABEL_WIDTH}}{_text(name, value)}"
    if found.use:
        yield f"  {'in a recipe':<{_LABEL_WIDTH}}{found.use}"
    for item in found.files:
        what = f"quantize: {item.quantize}" if item.quantize else item.title
        yield f"  {'gives ' + item.layer:<{_LABEL_WIDTH}}{format_size(item.size_bytes):>9}  {printable(what)}"
    for note in found.notes:
        yield f"note: {note}"
    for error in found.problems:
        yield f"problem: {error}"


def _text(name: str, value: Fact) -> str:
    from modelbuild.errors import printable

    if isinstance(value, Mapping):
        return ", ".join(f"{printable(key)} {number:,}" for key, number in value.items())
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return format_size(value) if name.endswith("_bytes") else f"{value:,}"
    return ", ".join(printable(item) for item in value)
