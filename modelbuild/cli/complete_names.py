"""Completion of stored models' names in shells: `modelbuild show hel<TAB>`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelbuild.cli.settings import current_settings
from modelbuild.errors import ModelbuildError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_stored(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names in the store that begin so; none when the store cannot be read, because a prompt shows no errors."""
    del parameter
    from click.shell_completion import CompletionItem

    from modelbuild.store.store import Store

    try:
        names = [str(model.name) for model in Store(current_settings(context).store).models()]
    except (ModelbuildError, OSError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
