"""Directories of a server under test, and the search for them in its answers."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.space import ROOT

#: The three texts of Ollama that name the models directory, which is put in the place of STORE.
_KNOWN = (
    r"open STORE/(blobs|manifests)/[^ ]+: no such file or directory"
    r"|(FROM|ADAPTER|DRAFT) STORE/blobs/sha256-[0-9a-f]{64}\b"
)


def make_places(root: Path) -> dict[str, Path]:
    """Directories with names that nothing else has, each for one purpose."""
    places = {name: root / f"secret-{name}" for name in ("store", "cache", "home", "temp", "open", "work")}
    for path in places.values():
        path.mkdir()
    return places


def environment(places: Mapping[str, Path]) -> dict[str, str]:
    """The variables that lead a server there."""
    return {
        "HOME": str(places["home"]),
        "TMPDIR": str(places["temp"]),
        "OLLAMA_MODELS": str(places["store"]),
        "MODELBUILD_STORE": str(places["store"]),
        "MODELBUILD_CACHE": str(places["cache"]),
    }


def named_places(text: str, places: Mapping[str, Path], *, known: bool) -> set[str]:
    """The directories that a text names; `known`: but for what Ollama's clients expect."""
    if known:
        text = re.sub(_KNOWN.replace("STORE", re.escape(str(places["store"]))), "", text)
    others = {"installation": sys.prefix, "program": str(ROOT)}
    return {name for name, path in {**places, **others}.items() if str(path) in text}
