"""What is known about stored models, read from manifest, config and small layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from modelbuild.engine.stored import read_stored
from modelbuild.errors import ModelbuildError
from modelbuild.formats.files import open_input
from modelbuild.formats.json_text import parse_json
from modelbuild.model_name import ModelName
from modelbuild.records import record
from modelbuild.store.config import ModelConfig, decode_config
from modelbuild.store.manifest import Layer, Manifest
from modelbuild.store.store import Store, StoredModel

#: Texts (templates, prompts, licences) and configs; larger ones are shown cut.
_TEXT_LIMIT_BYTES = 4 << 20


@record
class ModelRow:
    """A line of `list`.

    digest: of the manifest's bytes. listed: the hex digest that Ollama's list shows, the same but for rare sizes.
    """

    name: str
    path: str
    digest: str = ""
    listed: str = ""
    size_bytes: int = 0
    modified: str = ""
    family: str = ""
    parameter_size: str = ""
    file_type: str = ""
    damage: str = ""

    def to_json(self) -> dict[str, object]:
        """The row as a JSON object; `damage` only where there is some."""
        record: dict[str, object] = dict(asdict(self))
        if not self.damage:
            del record["damage"]
        return record


@record
class ModelDetails:
    """Everything `show` shows."""

    name: str
    digest: str
    manifest: Manifest
    config: ModelConfig
    template: str
    system: str
    licenses: tuple[str, ...]
    parameters: Mapping[str, object]
    messages: tuple[object, ...]

    def to_json(self) -> dict[str, object]:
        """The details as a JSON object."""
        return {
            "name": self.name,
            "digest": self.digest,
            "size_bytes": self.manifest.size_bytes,
            "config": {key: value for key, value in asdict(self.config).items() if value},
            "template": self.template,
            "system": self.system,
            "license": list(self.licenses),
            "parameters": dict(self.parameters),
            "messages": list(self.messages),
            "layers": [layer.to_json() for layer in self.manifest.layers],
        }


def describe_models(store: Store) -> list[ModelRow]:
    """One row per model of the store, sorted by name."""
    return [_row(model, store) for model in store.models()]


def describe_model(store: Store, name: ModelName) -> ModelDetails:
    """The details of one model; InputError MANIFEST when it is missing or damaged."""
    name = store.spelling(name)
    manifest, digest = read_stored(store, name)
    parameters = _json(store, manifest.of_kind("params"))
    messages = _json(store, manifest.of_kind("messages"))
    return ModelDetails(
        name=str(name),
        digest=digest,
        manifest=manifest,
        config=decode_config(_read(store, manifest.config), store.blobs.path(manifest.config.digest)),
        template="".join(_texts(store, manifest.of_kind("template"))[-1:]),
        system="".join(_texts(store, manifest.of_kind("system"))[-1:]),
        licenses=_texts(store, manifest.of_kind("license")),
        parameters=parameters if isinstance(parameters, dict) else {},
        messages=tuple(messages) if isinstance(messages, list) else (),
    )


def _row(model: StoredModel, store: Store) -> ModelRow:
    name, path = str(model.name), str(model.path)
    if model.manifest is None:
        return ModelRow(name, path, damage=model.damage)
    modified = datetime.fromtimestamp(model.modified_ns / 1e9, UTC).isoformat(timespec="seconds")
    digest, size_bytes = model.digest or "", model.manifest.size_bytes
    try:
        _check_blobs(model.manifest, store)
        config_path = store.blobs.path(model.manifest.config.digest)
        config = decode_config(_read(store, model.manifest.config), config_path)
    except ModelbuildError as error:
        return ModelRow(name, path, digest, model.listed, size_bytes, modified, damage=error.message)
    described = (config.model_family, config.model_type, config.file_type)
    return ModelRow(name, path, digest, model.listed, size_bytes, modified, *described)


def _check_blobs(manifest: Manifest, store: Store) -> None:
    for layer in (manifest.config, *manifest.layers):
        store.blobs.sound_path(layer.digest, layer.size_bytes)


def _texts(store: Store, layers: tuple[Layer, ...]) -> tuple[str, ...]:
    return tuple(_read(store, layer).decode("utf-8", "replace") for layer in layers)


def _json(store: Store, layers: tuple[Layer, ...]) -> object:
    if not layers:
        return None
    return parse_json(_read(store, layers[-1]), path=store.blobs.path(layers[-1].digest))


def _read(store: Store, layer: Layer) -> bytes:
    with open_input(store.blobs.sound_path(layer.digest, layer.size_bytes)) as source:
        return source.read_at(0, min(source.size_bytes, _TEXT_LIMIT_BYTES))
