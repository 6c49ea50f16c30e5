"""What `pull` and `push` share: the registry that a model's name says, and who asks it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelbuild.errors import UsageError, printable
from modelbuild.model_name import DEFAULT_HOST

if TYPE_CHECKING:
    from modelbuild.cli.settings import Settings
    from modelbuild.engine.transfer_events import Direction
    from modelbuild.model_name import ModelName
    from modelbuild.store.store import Store

_Command = TypeVar("_Command", bound=Callable[..., Any])
#: Not an option: command lines are shown to everybody on a machine.
PASSWORD_VARIABLE = "MODELBUILD_REGISTRY_PASSWORD"  # noqa: S105 - a name


def registry_options(command: _Command) -> _Command:
    """How to talk to the registry."""
    for option in (
        click.option("--username", default="", metavar="NAME",
                     help=f"Who asks; the password is taken from {PASSWORD_VARIABLE}, or asked for."),
        click.option("--insecure", is_flag=True, help="Without encryption; this machine's own registry never has any."),
    ):  # fmt: skip
        command = option(command)
    return command


def check_host_is_named(text: str, name: ModelName, direction: Direction) -> None:
    """UsageError when a name leaves its registry out: the default is for names on disk, nobody asked to contact it."""
    if name.host.lower() == DEFAULT_HOST and DEFAULT_HOST not in text.lower():
        hint = f"say which: {DEFAULT_HOST}/{name.namespace}/{name.model}:{name.tag}, or a registry of your own"
        if direction.verb == "push":
            hint = f"give it a name that does: modelbuild copy {name} HOST/NAMESPACE/{name.model}:{name.tag}"
        what = "to" if direction.verb == "push" else "from"
        raise UsageError("USAGE", f"the name {printable(text)!r} does not say {what} which registry", hint=hint)


def transfer(
    direction: Direction, name: ModelName, store: Store, settings: Settings, *, insecure: bool, username: str
) -> None:
    """Move a model and show progress; UsageError when the extra `remote` is not installed."""
    try:
        from modelbuild.engine.transfer import pull_model, push_model
        from modelbuild.remote.registry import Registry
    except ModuleNotFoundError as error:
        from modelbuild.extras import install_hint

        raise UsageError("USAGE", "registries need the extra 'remote'", hint=install_hint("remote")) from error
    from modelbuild.cli.render import choose_renderer
    from modelbuild.engine.transfer_events import PULL, show_transfer
    from modelbuild.remote.address import registry_address

    move = pull_model if direction is PULL else push_model
    address = registry_address(name.host, insecure=insecure)
    with Registry(address, _credentials(username)) as registry:
        show_transfer(
            direction, name, store, lambda report: move(name, registry, store, report),
            choose_renderer(settings.progress),
        )  # fmt: skip


def _credentials(username: str) -> tuple[str, str] | None:
    if not username:
        return None
    password = os.environ.get(PASSWORD_VARIABLE)
    return username, click.prompt("Password", hide_input=True, err=True) if password is None else password
