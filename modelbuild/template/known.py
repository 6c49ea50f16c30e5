"""Known chat templates: which Go template stands for a GGUF's or checkpoint's `tokenizer.chat_template`.

The index holds, in the order in which ties are settled, the chat templates that model families publish; the Go
templates beside it are written for the formats these families document. Both are data in `known_templates/`.
Source of names, order, stop texts and the distance rule: Ollama's create behaviour, August 2026.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from modelbuild.records import record
from modelbuild.template.distance import edit_distance

#: A chat template is known when it takes fewer edits than this to become one of the index.
DISTANCE_LIMIT = 100
_DATA = Path(__file__).with_name("known_templates")


@record
class Detected:
    """The known template that a chat template stands for, with the evidence.

    template: the Go template, to be stored byte for byte as UTF-8. stop: the stop texts that come with it, for a
    params layer. distance: edits between the chat template and entry `index` (from 0) of the known ones; below `limit`.
    """

    name: str
    template: str
    stop: tuple[str, ...]
    distance: int
    index: int
    limit: int = DISTANCE_LIMIT

    def evidence(self) -> str:
        """One line for people: what was recognised, and how surely."""
        edits = "the same text" if self.distance == 0 else f"{self.distance} of at most {self.limit - 1} edits away"
        return f"chat template recognised as {self.name} ({edits}, known template {self.index + 1})"


@record
class KnownTemplates:
    """The index: pairs of name and chat template in order, and the stop texts by name."""

    entries: Sequence[tuple[str, str]]
    stops: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted; one of them (vicuna) is in no entry and never detected."""
        return tuple(sorted(self.stops))


@cache
def load_known_templates() -> KnownTemplates:
    """The index that ships with modelbuild."""
    document = json.loads(_data("index.json"))
    entries = tuple((entry["name"], entry["chat_template"]) for entry in document["index"])
    return KnownTemplates(entries, {name: tuple(stop) for name, stop in document["stop"].items()})


def known_template(name: str) -> str:
    """The Go template of a known name; KeyError for an unknown one."""
    if name not in load_known_templates().stops:
        raise KeyError(name)
    return _data(f"{name}.gotmpl")


def detect_template(chat_template: str) -> Detected | None:
    """The known template nearest to a chat template, or None if none is nearer than DISTANCE_LIMIT edits.

    The first of equally near ones wins. Pure; at most a few milliseconds for each entry of similar length, and
    nothing for a text whose length no entry comes near.
    """
    best: tuple[int, int] | None = None
    known = load_known_templates()
    for index, (_, text) in enumerate(known.entries if chat_template else ()):
        bound = DISTANCE_LIMIT if best is None else best[0]
        distance = edit_distance(chat_template, text, bound) if bound else None
        best = best if distance is None else (distance, index)
    if best is None:
        return None
    name = known.entries[best[1]][0]
    return Detected(name, known_template(name), known.stops[name], best[0], best[1])


def _data(file_name: str) -> str:
    # Read as bytes: the text must not change on a system that translates line ends.
    return (_DATA / file_name).read_bytes().decode()
