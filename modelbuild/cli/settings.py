"""Where things are and how to talk: options that every command takes, with their environment variables."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
PROGRESS_MODES = ("auto", "tty", "plain", "json", "quiet")


@dataclass(frozen=True, slots=True)
class Settings:
    """The models directory, the cache directory and the progress renderer."""

    store: Path
    cache: Path
    progress: str = "auto"


def default_store() -> Path:
    """MODELBUILD_STORE, else OLLAMA_MODELS, else ~/.ollama/models."""
    chosen = _variable("MODELBUILD_STORE") or _variable("OLLAMA_MODELS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".ollama" / "models"


def default_cache() -> Path:
    """MODELBUILD_CACHE, else modelbuild/ in the user's cache directory."""
    if chosen := _variable("MODELBUILD_CACHE"):
        return Path(chosen).expanduser()
    base = _variable("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "modelbuild"


def is_pruning() -> bool:
    """May a build delete what a replaced model leaves behind? Not with OLLAMA_NOPRUNE, read as Ollama reads it."""
    return _variable("OLLAMA_NOPRUNE") in ("", "0", "f", "F", "FALSE", "false", "False")


def _variable(name: str) -> str:
    """An environment variable, trimmed of blanks and quotes as Ollama does."""
    return os.environ.get(name, "").strip().strip("\"'")


def settings_options(command: _Command) -> _Command:
    """The common options, accepted before and after the command's name."""
    for option in (
        click.option("--store", type=click.Path(path_type=Path), callback=_set, expose_value=False, is_eager=True,
                     metavar="DIR", help="Models directory [MODELBUILD_STORE, OLLAMA_MODELS, ~/.ollama/models]."),
        click.option("--cache", type=click.Path(path_type=Path), callback=_set, expose_value=False, is_eager=True,
                     metavar="DIR", help="Directory for what was learnt in earlier runs [MODELBUILD_CACHE]."),
        click.option("--progress", type=click.Choice(PROGRESS_MODES), callback=_set, expose_value=False,
                     is_eager=True, help="How to show progress [auto]."),
    ):  # fmt: skip
        command = option(command)
    return command


def current_settings(context: click.Context) -> Settings:
    """The settings made of defaults, environment and options."""
    root = context.find_root()
    if not isinstance(root.obj, Settings):
        root.obj = Settings(default_store().absolute(), default_cache().absolute())
    return root.obj


def _set(context: click.Context, parameter: click.Parameter, value: Path | str | None) -> None:
    settings = current_settings(context)
    if isinstance(value, str):
        settings = replace(settings, progress=value)
    elif value is not None:
        directory = value.expanduser().absolute()
        is_store = parameter.name == "store"
        settings = replace(settings, store=directory) if is_store else replace(settings, cache=directory)
    context.find_root().obj = settings
