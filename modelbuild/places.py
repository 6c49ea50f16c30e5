"""Where the models directory and the cache are when nobody says; imports nothing, because the no-op check needs it."""

from __future__ import annotations

import os
from pathlib import Path


def default_store() -> Path:
    """MODELBUILD_STORE, else OLLAMA_MODELS, else ~/.ollama/models."""
    return expanded(_variable("MODELBUILD_STORE") or _variable("OLLAMA_MODELS") or "~/.ollama/models")


def default_cache() -> Path:
    """MODELBUILD_CACHE, else modelbuild/ in the user's cache directory."""
    if chosen := _variable("MODELBUILD_CACHE"):
        return expanded(chosen)
    return expanded(_variable("XDG_CACHE_HOME") or "~/.cache") / "modelbuild"


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with the home directory that a `~` at its beginning stands for; UsageError PATH when there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # an unknown user; or a user number without a name, and no HOME, as in containers
        from modelbuild.errors import UsageError, printable

        hint = "set HOME, or say where with --store and --cache"
        raise UsageError("PATH", f"there is no such home directory: {printable(str(path))!r}", hint=hint) from error


def is_pruning() -> bool:
    """May a build delete what a replaced model leaves behind? Not with OLLAMA_NOPRUNE, read as Ollama reads it."""
    return _variable("OLLAMA_NOPRUNE") in ("", "0", "f", "F", "FALSE", "false", "False")


def _variable(name: str) -> str:
    """An environment variable, trimmed of blanks and quotes as Ollama does."""
    return os.environ.get(name, "").strip().strip("\"'")
