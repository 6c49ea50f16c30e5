"""Model names: `[host/][namespace/]model[:tag]`, their grammar, defaults and display form."""

from __future__ import annotations

import re
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.late_pattern import late_pattern
from modelbuild.records import record

DEFAULT_HOST = "registry.ollama.ai"  # part of Ollama's on-disk layout; contacted only where it is spelt out
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = late_pattern(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}", re.ASCII)
_NAMESPACE = late_pattern(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", re.ASCII)
_PART = late_pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", re.ASCII)


@record
class ModelName:
    """A full model name; its four parts are valid and keep the spelling they were given."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def relative_path(self) -> Path:
        """Where the manifest stands below `manifests/`."""
        return Path(self.host, self.namespace, self.model, self.tag)

    def __lt__(self, other: ModelName) -> bool:
        """By host first; sorting needs nothing else."""
        return (self.host, self.namespace, self.model, self.tag) < (other.host, other.namespace, other.model, other.tag)

    def __str__(self) -> str:
        """The short form users see: default host and namespace are left out, the tag never is."""
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{short}"


def parse_name(text: str) -> ModelName:
    """A model name with defaults filled in; InputError MODELNAME when it breaks the grammar.

    A scheme before the host is accepted and dropped: `http://h/n/m:t` is the model `h/n/m:t`.
    """
    rest, tag = text, DEFAULT_TAG
    if ":" in rest[rest.rfind("/") + 1 :]:
        rest, _, tag = rest.rpartition(":")
    namespace, host = DEFAULT_NAMESPACE, DEFAULT_HOST
    rest, slash, model = rest.rpartition("/")
    if slash:
        before, slash, namespace = rest.rpartition("/")
        if slash:
            host = (before.partition("://")[2] or DEFAULT_HOST) if "://" in before else before
    name = ModelName(host, namespace, model, tag)
    if not _is_valid(name):
        hint = "[host/][namespace/]model[:tag], each of letters, digits, '_', '-' and (not in a namespace) '.'"
        raise InputError("MODELNAME", f"invalid model name: {printable(text)!r}", hint=hint)
    return name


def _is_valid(name: ModelName) -> bool:
    return all(
        pattern.fullmatch(part) is not None
        for pattern, part in (
            (_HOST, name.host),
            (_NAMESPACE, name.namespace),
            (_PART, name.model),
            (_PART, name.tag),
        )
    )
