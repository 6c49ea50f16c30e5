"""`modelbuild fmt`: recipes in one layout."""

from __future__ import annotations

from pathlib import Path

import click

from modelbuild.cli.build import DEFAULT_RECIPE
from modelbuild.errors import InputError

EXIT_WOULD_CHANGE = 1


@click.command(name="fmt")
@click.argument("recipes", type=click.Path(path_type=Path), nargs=-1)
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 when a recipe is laid out otherwise.")
@click.option("--diff", is_flag=True, help="Show what changes, or would change.")
def command(recipes: tuple[Path, ...], *, check: bool, diff: bool) -> int:
    """Lay out RECIPES (default: recipe.yaml) in one way, keeping comments and what they mean."""
    import difflib

    from modelbuild.formats.new_file import new_file
    from modelbuild.recipe.documents import read_limited
    from modelbuild.recipe.layout import format_recipe
    from modelbuild.recipe.located import with_near_names

    changed = 0
    for path in recipes or (Path(DEFAULT_RECIPE),):
        try:
            data = read_limited(path)
        except InputError as error:
            raise with_near_names(error, path, "'modelbuild init SOURCE' writes a first recipe") from error
        formatted = format_recipe(data, str(path))
        if formatted.encode() == data:
            continue
        changed += 1
        if diff:
            before = data.decode("utf-8-sig", "replace").splitlines(keepends=True)
            after = formatted.splitlines(keepends=True)
            click.echo("".join(difflib.unified_diff(before, after, str(path), str(path))), nl=False)
        else:
            click.echo(f"{path}: {'is laid out otherwise' if check else 'formatted'}")
        if not check:
            with new_file(path) as target:
                target.write(formatted.encode())
    return EXIT_WOULD_CHANGE if check and changed else 0
