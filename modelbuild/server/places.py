"""Directories of this machine stay out of what the server says.

Ollama's answers name the models directory in three places: where the blob of a request or the manifest of a push is
missing, and in the Modelfile of a model. Clients on this machine know and use these, so they stay for a server that
only this machine reaches; other machines get them relative to the models directory.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from modelbuild.server.guard import is_loopback
from modelbuild.server.settings import ServerSettings


class Places:
    """The directories of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._store = settings.store
        self._is_private = is_loopback(settings.host)
        known = sorted(_spellings(settings), key=len, reverse=True)
        self._pattern = re.compile(f"(?<![A-Za-z0-9._-])({'|'.join(map(re.escape, known))})(/|(?![^/:;,'\"\\s]))")

    def hide(self, text: str) -> str:
        """The error text of an answer without any directory, but for what clients on this machine know from Ollama."""
        return text if self._is_private and self._is_known(text) else self.strip(text)

    def strip(self, text: str) -> str:
        """A text without any of the directories; of one that stands alone the last part stays."""
        return self._pattern.sub(lambda found: "" if found[2] else Path(found[1]).name, text)

    def strip_all(self, value: object) -> object:
        """The same for every text in a JSON value."""
        if isinstance(value, str):
            return self.strip(value)
        if isinstance(value, Mapping):
            return {key: self.strip_all(item) for key, item in value.items()}
        return [self.strip_all(item) for item in value] if isinstance(value, list) else value

    def blob(self, path: Path) -> str:
        """How a Modelfile names a blob."""
        return str(path) if self._is_private else str(path.relative_to(self._store))

    def _is_known(self, text: str) -> bool:
        return text.startswith(f"open {self._store}/") and text.endswith(": no such file or directory")


def _spellings(settings: ServerSettings) -> set[str]:
    """The directories as they were given, and with links followed."""
    own = (settings.store, settings.cache, *settings.allow_paths)
    others = (_home(), Path.cwd(), Path(tempfile.gettempdir()), Path(sys.prefix), Path(__file__).parents[2])
    return {str(spelled) for path in (*own, *others) for spelled in (path.absolute(), path.resolve())} - {"/"}


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user without one
        return Path("/")
