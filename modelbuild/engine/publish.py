"""Puts a model together from blobs that stand in the store, and writes its manifest last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from modelbuild.digest import Digest, digest_of
from modelbuild.engine.layer_facts import read_gguf_facts
from modelbuild.errors import InputError, StoreError
from modelbuild.formats.files import open_input
from modelbuild.formats.json_text import read_json_object
from modelbuild.plan.compose import BaseModel, Composition, GgufFacts, NewLayers, compose_model
from modelbuild.plan.decide import Result
from modelbuild.plan.graph import LayerSlot, PublishWork, SlotRole
from modelbuild.store.config import decode_config
from modelbuild.store.go_json import encode_go_json
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.state import State
from modelbuild.store.store import Store

if TYPE_CHECKING:
    from modelbuild.template import Detected

#: A config document is some hundred bytes; the limit only guards against a damaged store.
_CONFIG_LIMIT_BYTES = 16 << 20


#: Called with a model's name and the digest that its manifest will have; an exception keeps it from appearing.
Approve = Callable[[str, Digest], None]


def approve_all(name: str, digest: Digest) -> None:
    """Let every manifest appear."""
    del name, digest


def publish_model(
    work: PublishWork, results: Mapping[str, Result], store: Store, state: State, approve: Approve = approve_all
) -> Result:
    """Write params, config and manifest of a model; returns the manifest's digest and the model's size.

    results: of the actions behind the work's slots. The manifest appears in one step, after all it names.
    """
    base = None if work.base is None else _read_base(work, store)
    files, extra, texts = ([_layer(slot, results[slot.action]) for slot in work.slots_of(role)] for role in SlotRole)
    replacements = [
        _layer(LayerSlot("model", action), results[action]) if action else None for action in work.replacements
    ]
    inherited = () if base is None else base.layers
    facts = _gguf_facts([*inherited, *filter(None, replacements), *files, *extra], store, state)
    detected = detect_for_files(work, files, facts)
    composition = compose_model(
        work.model,
        base,
        NewLayers(replacements, files, _template_layers(detected, store), extra, texts),
        facts=facts,
        detected_stop=detected[0].stop if detected else (),
        remote=(work.remote_host, work.remote_model),
    )
    manifest = _write_documents(composition, store)
    _check_blobs(manifest, store)
    approve(str(work.target), digest_of(manifest.encode()))
    digest = store.publish(work.target, manifest)
    _check_blobs(manifest, store)
    return Result(digest, manifest.size_bytes)


def detect_for_files(
    work: PublishWork, files: Sequence[Layer], facts: Mapping[Digest, GgufFacts]
) -> tuple[Detected, ...]:
    """The known templates that the chat templates of a model's own GGUF files stand for.

    Nothing is looked for in a base, an adapter or a draft, or when the recipe says `template: null`.
    """
    if "template" in work.model.cleared:
        return ()
    texts = [facts[layer.digest].chat_template for layer in files if layer.digest in facts]
    if not any(texts):
        return ()
    from modelbuild.template import detect_template

    found = [detect_template(text) for text in texts if text]
    return tuple(item for item in found if item is not None)


def _template_layers(detected: Sequence[Detected], store: Store) -> list[Layer]:
    layers = []
    for item in detected:
        data = item.template.encode()
        layers.append(Layer(layer_media_type("template"), store.blobs.put(data), len(data)))
    return layers


def _read_base(work: PublishWork, store: Store) -> BaseModel:
    found = None if work.base is None else store.find(work.base)
    if found is None:
        raise InputError("MANIFEST", f"the model {work.base} is gone from the store", hint="build it again first")
    manifest, _ = found
    path = store.blobs.path(manifest.config.digest)
    with_config = decode_config(_read_blob(store, manifest.config), path)
    parameters: dict[str, object] = {}
    for layer in manifest.of_kind("params"):
        parameters = {**read_json_object(store.blobs.sound_path(layer.digest, layer.size_bytes)), **parameters}
    return BaseModel(str(work.base), _with_sizes(manifest.layers, store), with_config, parameters)


def _read_blob(store: Store, layer: Layer) -> bytes:
    with open_input(store.blobs.sound_path(layer.digest, layer.size_bytes)) as source:
        return source.read_at(0, min(source.size_bytes, _CONFIG_LIMIT_BYTES))


def _with_sizes(layers: tuple[Layer, ...], store: Store) -> tuple[Layer, ...]:
    """The base's layers, each refreshed and proven to be there at its size."""
    for layer in layers:
        if store.blobs.size_of(layer.digest) != layer.size_bytes:
            path = store.blobs.path(layer.digest)
            raise InputError("MANIFEST", "a layer of the base model is missing or cut", path=path)
        store.blobs.refresh(layer.digest)
    return layers


def _layer(slot: LayerSlot, result: Result) -> Layer:
    return Layer(layer_media_type(slot.kind), result.digest, result.size_bytes, slot.from_)


def _gguf_facts(layers: Sequence[Layer], store: Store, state: State) -> dict[Digest, GgufFacts]:
    """Facts about model and draft layers, by digest."""
    digests = dict.fromkeys(layer.digest for layer in layers if layer.kind in ("model", "draft"))
    return {digest: read_gguf_facts(store.blobs, digest, state) for digest in digests}


def _write_documents(composition: Composition, store: Store) -> Manifest:
    layers = list(composition.layers)
    if composition.parameters is not None:
        data = encode_go_json(composition.parameters, sort_keys=True) + b"\n"
        params = Layer(layer_media_type("params"), store.blobs.put(data), len(data))
        layers.insert(composition.params_index, params)
    config = composition.config.encode()
    return Manifest(Layer(CONFIG_MEDIA_TYPE, store.blobs.put(config), len(config)), tuple(layers))


def _check_blobs(manifest: Manifest, store: Store) -> None:
    """A starting Ollama server deletes blobs that no manifest names yet; better to notice than to publish a torso."""
    for layer in (manifest.config, *manifest.layers):
        if store.blobs.size_of(layer.digest) != layer.size_bytes:
            raise StoreError(
                "STORE",
                f"the blob {layer.digest} disappeared while the model was published",
                hint="another program cleaned the store; run the build again",
            )
