"""A stored model as a Modelfile that makes it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelbuild.engine.describe import ModelDetails
from modelbuild.formats.modelfile import Command, format_modelfile, survives
from modelbuild.store.config import ModelConfig
from modelbuild.store.go_json import format_go_float
from modelbuild.store.store import Store


def modelfile_of(details: ModelDetails, store: Store) -> tuple[str, tuple[str, ...]]:
    """The text of the Modelfile, its paths those of blobs, and a note for each thing that no Modelfile can say."""
    commands, notes = [], []
    for command in _commands(details, store):
        if survives(command):
            commands.append(command)
        else:
            key = f" {command.key}" if command.key else ""
            notes.append(f"{command.name.upper()}{key}: quotes, characters or a role that a Modelfile cannot say")
    notes += [f"{name} ({value}): a Modelfile has no word for it" for name, value in _unsayable(details.config)]
    return format_modelfile(commands), tuple(notes)


def _unsayable(config: ModelConfig) -> Iterator[tuple[str, object]]:
    """What only `remote_host` and `info` of a recipe can say, as far as the config shows that they did."""
    if config.remote_host:
        yield "remote_host", f"{config.remote_model} at {config.remote_host}"
    if config.capabilities:
        yield "info.capabilities", ", ".join(config.capabilities)
    lengths = {"info.context_length": config.context_length, "info.embedding_length": config.embedding_length}
    yield from ((name, value) for name, value in {**lengths, "info.base_name": config.base_name}.items() if value)


def _commands(details: ModelDetails, store: Store) -> Iterator[Command]:
    for kind, word in (("model", "from"), ("projector", "from"), ("adapter", "adapter"), ("draft", "draft")):
        for layer in details.manifest.of_kind(kind):
            yield Command(word, str(store.blobs.path(layer.digest)))
    config = details.config
    texts = (
        ("template", details.template),
        ("system", details.system),
        ("renderer", config.renderer),
        ("parser", config.parser),
        ("requires", config.requires),
    )
    yield from (Command(word, text) for word, text in texts if text)
    for key in sorted(details.parameters):
        value = details.parameters[key]
        for item in value if isinstance(value, list) else [value]:
            yield Command("parameter", _parameter(item), key)
    yield from (Command("license", text) for text in details.licenses)
    for message in details.messages:
        if isinstance(message, Mapping):
            yield Command("message", str(message.get("content") or ""), str(message.get("role") or ""))


def _parameter(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return format_go_float(float(value)) if isinstance(value, int | float) else str(value)
