"""`modelbuild schema`: the published JSON Schemas, for editors and other tools."""

from __future__ import annotations

import click

from modelbuild.errors import UsageError, printable

_SUFFIX = ".schema.json"


@click.command(name="schema")
@click.argument("name", default="recipe")
@click.option("--list", "is_listing", is_flag=True, help="List the schemas that there are.")
def command(name: str, *, is_listing: bool) -> None:
    """Print the JSON Schema called NAME (default: recipe), such as recipe or create-request.

    Save it beside your recipes and begin each of them with this line; editors then complete and check as you type:

    \b
        # yaml-language-server: $schema=./recipe.schema.json
    """
    import json

    from modelbuild.recipe.schema import load_schema, schema_names

    names = [item.removesuffix(_SUFFIX) for item in schema_names()]
    if is_listing:
        click.echo("\n".join(names))
    elif name.removesuffix(_SUFFIX) not in names:
        raise UsageError("UNKNOWN", f"no schema {printable(name)!r}", hint=f"there is {', '.join(names)}")
    else:
        click.echo(json.dumps(load_schema(name.removesuffix(_SUFFIX) + _SUFFIX), indent=2, ensure_ascii=False))
