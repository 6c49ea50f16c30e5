"""Stored models as the API describes them: an entry of the list, and everything about one model.

Source: Ollama's tags and show endpoints, August 2026, measured.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.engine.describe import ModelDetails, describe_model
from modelbuild.engine.listed_gguf import ListedGguf, read_listed
from modelbuild.engine.show_texts import ModelTexts, modelfile_text, parameters_text
from modelbuild.errors import InputError, ModelbuildError
from modelbuild.formats.gguf.reader import GgufHeader, TensorInfo, open_gguf
from modelbuild.formats.gguf.types import ValueType
from modelbuild.model_name import ModelName
from modelbuild.plan.layer_kind import count_parameters
from modelbuild.records import record
from modelbuild.store.config import ModelConfig
from modelbuild.store.go_json import ExactInteger
from modelbuild.store.manifest import Layer, Manifest
from modelbuild.store.store import Store, StoredModel
from modelbuild.template.capabilities import (
    DEFAULT_TEMPLATE,
    GgufTraits,
    ModelTraits,
    ProjectorTraits,
    listed_capabilities,
    shown_capabilities,
    shown_template,
)
from modelbuild.template.nodes import Template
from modelbuild.template.parser import parse_template
from modelbuild.template.traits import CHAT_TEMPLATE_KEY, gguf_traits, projector_traits

#: The largest number that rounds to a single-precision one.
_LARGEST_FLOAT32 = 3.40282356e38
_UNKNOWN_TYPES = ("", "unknown")
#: Keys that `show` leaves out of the metadata.
_HIDDEN_KEYS = ("general.name", CHAT_TEMPLATE_KEY)


class ModelLister:
    """Describes all models of a store; remembers what it read of GGUF files, whose content never changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ggufs: dict[Digest, ListedGguf] = {}

    def list_models(self) -> list[dict[str, object]]:
        """One entry per readable model, the most recent first."""
        models = [model for model in self._store.models() if model.manifest is not None]
        models.sort(key=lambda model: -(model.modified_ns // 1_000_000_000))
        entries = [self._entry(model) for model in models]
        return [entry for entry in entries if entry is not None]

    def _entry(self, model: StoredModel) -> dict[str, object] | None:
        try:
            details = describe_model(self._store, model.name)
            traits, gguf = self._traits(details)
        except ModelbuildError:
            return None
        config = details.config
        record: dict[str, object] = {"name": str(model.name), "model": str(model.name)}
        record |= {key: text for key, text in _remote(config).items() if text}
        record |= {
            "modified_at": rfc3339(model.modified_ns),
            "size": details.manifest.size_bytes,
            "digest": model.listed,
            "details": _details(config, details.manifest, gguf) | _lengths(config, gguf),
        }
        capabilities = listed_capabilities(traits, gguf.capabilities if gguf is not None else ())
        return record | ({"capabilities": list(capabilities)} if capabilities else {})

    def _traits(self, details: ModelDetails) -> tuple[ModelTraits, ListedGguf | None]:
        layers = details.manifest.of_kind("model")
        gguf = self._listed(layers[-1]) if layers else None
        projectors = [
            projector_traits(open_gguf(_path_of(self._store, layer)).kv)
            for layer in details.manifest.of_kind("projector")
        ]
        return _model_traits(details, None, projectors), gguf

    def _listed(self, layer: Layer) -> ListedGguf:
        known = self._ggufs.get(layer.digest)
        if known is None:
            known = self._ggufs[layer.digest] = read_listed(open_gguf(_path_of(self._store, layer)))
        return known


def _path_of(store: Store, layer: Layer) -> Path:
    return store.blobs.sound_path(layer.digest, layer.size_bytes)


@record
class ShowOptions:
    """What a request to show lays over the model, and how much it wants.

    use_go_template: OLLAMA_GO_TEMPLATE, None when it is not set. blob_text: how the Modelfile names a blob.
    """

    system: str = ""
    parameters: Mapping[str, object] | None = None
    verbose: bool = False
    use_go_template: bool | None = None
    blob_text: Callable[[Path], str] = str


def show_model(store: Store, name: ModelName, options: ShowOptions = ShowOptions()) -> dict[str, object] | None:
    """Everything about a model, in the order of Ollama's answer; None for one without a model layer (a projector).

    Remote models have no layers, and are described from their config.
    """
    details = describe_model(store, name)
    if not details.manifest.of_kind("model") and not details.config.remote_host:
        return None
    header, projectors, traits = _weights(store, details)
    texts = _texts(store, details, options)
    record: dict[str, object] = {
        "license": "\n".join(details.licenses),
        "modelfile": modelfile_text(texts),
        "parameters": parameters_text(details.parameters),
        "template": shown_template(traits, use_go_template=options.use_go_template),
        "system": texts.system,
    }
    record = {key: value for key, value in record.items() if value}
    record["details"] = _details(details.config, details.manifest, None)
    if details.messages:
        record["messages"] = [_spoken(message) for message in details.messages]
    record |= {key: text for key, text in _remote(details.config).items() if text}
    record["model_info"] = _remote_info(details.config) if header is None else _info(header, verbose=options.verbose)
    if projectors:
        record["projector_info"] = _info(projectors[0], verbose=options.verbose)
    if header is not None:
        record["tensors"] = [_tensor(item) for item in header.tensors]
    capabilities = shown_capabilities(traits, use_go_template=options.use_go_template)
    record |= {"capabilities": list(capabilities)} if capabilities else {}
    record["modified_at"] = rfc3339(store.manifest_path(store.spelling(name)).stat().st_mtime_ns)
    return record | ({"requires": details.config.requires} if details.config.requires else {})


@record
class ShownFacts:
    """What a model can do and how much it takes, as far as config and weights say; lengths are 0 where they do not."""

    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0

    def to_json(self) -> dict[str, object]:
        """The facts as a JSON object, without lengths that are not known."""
        lengths = {"context_length": self.context_length, "embedding_length": self.embedding_length}
        return {"capabilities": list(self.capabilities), **{key: length for key, length in lengths.items() if length}}


def shown_facts(store: Store, details: ModelDetails) -> ShownFacts:
    """The facts that Ollama's `show` gives of a model; those of the config alone where its weights cannot be read."""
    config = details.config
    try:
        header, _, traits = _weights(store, details)
    except InputError:
        return ShownFacts(config.capabilities, config.context_length, config.embedding_length)
    capabilities, lengths = shown_capabilities(traits), {"context_length": 0, "embedding_length": 0}
    if header is not None:
        arch = header.kv.get_string("general.architecture") or ""
        lengths = {key: header.kv.get_integer(f"{arch}.{key}", 0) or 0 for key in lengths}
    return ShownFacts(
        capabilities,
        config.context_length or lengths["context_length"],
        config.embedding_length or lengths["embedding_length"],
    )


def rfc3339(time_ns: int) -> str:
    """A time in UTC with as many decimals as it needs, up to nanoseconds."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    fraction = f".{rest_ns:09d}".rstrip("0") if rest_ns else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _weights(store: Store, details: ModelDetails) -> tuple[GgufHeader | None, list[GgufHeader], ModelTraits]:
    """The header of the model's weights, those of its projectors, and what follows from them."""
    layers = details.manifest.of_kind("model")
    header = open_gguf(_path_of(store, layers[-1])) if layers else None
    projectors = [open_gguf(_path_of(store, layer)) for layer in details.manifest.of_kind("projector")]
    gguf = None if header is None else gguf_traits(header.kv)
    return header, projectors, _model_traits(details, gguf, [projector_traits(item.kv) for item in projectors])


def _model_traits(details: ModelDetails, gguf: GgufTraits | None, projectors: list[ProjectorTraits]) -> ModelTraits:
    config = details.config
    return ModelTraits(
        config_capabilities=config.capabilities,
        renderer=config.renderer,
        parser=config.parser,
        family=config.model_family,
        families=config.model_families or (),
        template=_parsed(details),
        gguf=gguf,
        projectors=projectors,
    )


def _parsed(details: ModelDetails) -> Template | None:
    """The stored template; None without one, and for one that is no template at all."""
    if not details.manifest.of_kind("template"):
        return None
    try:
        return parse_template(details.template)
    except InputError:
        return None


def _details(config: ModelConfig, manifest: Manifest, gguf: ListedGguf | None) -> dict[str, object]:
    layers = manifest.of_kind("model")
    file_type = config.file_type
    if file_type in _UNKNOWN_TYPES and gguf is not None and gguf.file_type:
        file_type = gguf.file_type
    return {
        "parent_model": layers[-1].from_ if layers else "",
        "format": config.model_format,
        "family": config.model_family,
        "families": None if config.model_families is None else list(config.model_families),
        "parameter_size": config.model_type,
        "quantization_level": file_type,
    }


def _lengths(config: ModelConfig, gguf: ListedGguf | None) -> dict[str, object]:
    found = {
        "context_length": config.context_length or (gguf.context_length if gguf else 0),
        "embedding_length": config.embedding_length or (gguf.embedding_length if gguf else 0),
    }
    return {key: length for key, length in found.items() if length}


def _remote(config: ModelConfig) -> dict[str, str]:
    return {"remote_model": config.remote_model, "remote_host": config.remote_host}


def _texts(store: Store, details: ModelDetails, options: ShowOptions) -> ModelTexts:
    def paths(kind: str) -> list[str]:
        return [options.blob_text(store.blobs.path(layer.digest)) for layer in details.manifest.of_kind(kind)]

    return ModelTexts(
        name=details.name,
        model_path="".join(paths("model")[-1:]),
        adapter_paths=paths("adapter"),
        draft_path="".join(paths("draft")[-1:]),
        projector_paths=paths("projector"),
        template=details.template if details.manifest.of_kind("template") else DEFAULT_TEMPLATE,
        system=options.system or details.system,
        renderer=details.config.renderer,
        parser=details.config.parser,
        parameters={**details.parameters, **(options.parameters or {})},
        licenses=details.licenses,
        messages=[message for message in details.messages if isinstance(message, Mapping)],
    )


def _tensor(item: TensorInfo) -> dict[str, object]:
    return {"name": item.name, "type": item.type.name, "shape": [ExactInteger(size) for size in item.shape]}


def _spoken(message: object) -> dict[str, object]:
    record = message if isinstance(message, Mapping) else {}
    return {"role": record.get("role", ""), "content": record.get("content", "")}


def _info(header: GgufHeader, *, verbose: bool) -> dict[str, object]:
    """The metadata by sorted key; arrays only when they are wanted, since a vocabulary is long."""
    found: dict[str, object] = {}
    for key in header.kv:
        if key in _HIDDEN_KEYS:
            continue
        length = header.kv.length_of(key)
        found[key] = None if length and not verbose else _plain(header, key)
    found["general.parameter_count"] = ExactInteger(count_parameters(header))
    return dict(sorted(found.items()))


def _plain(header: GgufHeader, key: str) -> object:
    value = header.kv[key]
    decoded = value.decode()
    is_single = ValueType.F32 in (value.type, value.element_type)
    if isinstance(decoded, list | tuple):
        return [_plain_scalar(item, is_single=is_single) for item in decoded]
    return _plain_scalar(decoded, is_single=is_single)


def _plain_scalar(value: object, *, is_single: bool) -> object:
    """A value as JSON shows it: integers whole, floats short, NaN and infinity as null, which JSON cannot say."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ExactInteger(value)
    if isinstance(value, float):
        return (shortest_float32(value) if is_single else value) if math.isfinite(value) else None
    return value


def shortest_float32(number: float) -> float:
    """The double with the fewest digits that rounds to the same single-precision number."""
    for precision in range(1, 10):
        candidate = float(f"{number:.{precision}g}")
        # Digits that round up beyond the largest single-precision number cannot be packed.
        if abs(candidate) <= _LARGEST_FLOAT32 and struct.unpack("<f", struct.pack("<f", candidate))[0] == number:
            return candidate
    return number


def _remote_info(config: ModelConfig) -> dict[str, object]:
    family = config.model_family
    found = {
        "general.architecture": family,
        "general.basename": config.base_name,
        f"{family}.context_length": config.context_length,
        f"{family}.embedding_length": config.embedding_length,
    }
    return {key: value for key, value in sorted(found.items()) if value}
