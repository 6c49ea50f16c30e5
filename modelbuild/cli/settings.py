"""Where things are and how to talk: options that every command takes, with their environment variables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from modelbuild.places import default_cache, default_store, expanded, is_pruning

__all__ = ["PROGRESS_MODES", "Settings", "current_settings", "is_pruning", "settings_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
PROGRESS_MODES = ("auto", "tty", "plain", "json", "quiet")


class Settings(NamedTuple):
    """The models directory, the cache directory and the progress renderer.

    given_store, given_cache: what an option says, None without one.
    """

    given_store: Path | None = None
    given_cache: Path | None = None
    progress: str = "auto"

    @property
    def store(self) -> Path:
        """The models directory; UsageError PATH when nobody says where it is and there is no home."""
        return self.given_store or default_store().absolute()

    @property
    def cache(self) -> Path:
        """The cache directory, likewise."""
        return self.given_cache or default_cache().absolute()


def settings_options(command: _Command) -> _Command:
    """The common options, accepted before and after the command's name."""
    for option in (
        click.option("--store", type=click.Path(path_type=Path), callback=_set, expose_value=False, is_eager=True,
                     metavar="DIR", help="Models [MODELBUILD_STORE, else Ollama's directory]."),
        click.option("--cache", type=click.Path(path_type=Path), callback=_set, expose_value=False, is_eager=True,
                     metavar="DIR", help="What earlier runs learnt [MODELBUILD_CACHE]."),
        click.option("--progress", type=click.Choice(PROGRESS_MODES), callback=_set, expose_value=False,
                     is_eager=True, metavar="MODE", help="Progress: auto, tty, plain, json or quiet [auto]."),
    ):  # fmt: skip
        command = option(command)
    return command


def current_settings(context: click.Context) -> Settings:
    """The settings made of defaults, environment and options."""
    root = context.find_root()
    if not isinstance(root.obj, Settings):
        root.obj = Settings()
    return root.obj


def _set(context: click.Context, parameter: click.Parameter, value: Path | str | None) -> None:
    settings = current_settings(context)
    if isinstance(value, str):
        settings = settings._replace(progress=value)
    elif value is not None:
        place = expanded(value).absolute()
        is_store = parameter.name == "store"
        settings = settings._replace(given_store=place) if is_store else settings._replace(given_cache=place)
    context.find_root().obj = settings
