"""The front matter of a model card (README.md): bounded YAML from strangers."""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.errors import InputError

#: A front matter is some kilobytes; YAML takes far more time for its length than JSON.
_LIMIT_BYTES = 256 << 10
_NODE_LIMIT = 20_000
_DEPTH_LIMIT = 32
_FENCE = "---"


def read_model_card(text: str) -> Mapping[str, object]:
    """The front matter as a mapping; empty when there is none, or none that can be read safely.

    A card is a courtesy, so nothing in it stops a conversion: documents with aliases, tags, too many or too deeply
    nested nodes, or errors are taken as absent.
    """
    lines = text.splitlines()
    if not lines or lines[0] != _FENCE:
        return {}
    body: list[str] = []
    for line in lines[1:]:
        if line == _FENCE:
            break
        body.append(line)
    source = "\n".join(body) + "\n"
    # A tab cannot indent in YAML, and a list of languages may hold Norwegian, which YAML 1.1 reads as false.
    source = source.replace("- no\n", '- "no"\n').replace("\t", "  ")
    if len(source.encode("utf-8", "replace")) > _LIMIT_BYTES:
        return {}
    return _load(source)


def _load(source: str) -> Mapping[str, object]:
    import yaml

    try:
        _check_events(source)
        value = yaml.safe_load(source)
    except (yaml.YAMLError, InputError, ValueError, OverflowError, RecursionError):
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return {}
    return value


def _check_events(source: str) -> None:
    """Stop at the first excess, before anything is built."""
    import yaml

    nodes = depth = 0
    for event in yaml.parse(source, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) or getattr(event, "anchor", None):
            raise InputError("YAML", "aliases, anchors and tags are not read from model cards")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > _NODE_LIMIT or depth > _DEPTH_LIMIT:
            raise InputError("YAML", "the model card is too large")
