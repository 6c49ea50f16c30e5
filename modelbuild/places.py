"""Where the models directory and the cache are when nobody says; imports nothing, because the no-op check needs it."""

from __future__ import annotations

import os
from pathlib import Path


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
