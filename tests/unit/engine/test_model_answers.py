"""Stored models as the API describes them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from modelbuild.engine.model_answers import ModelLister, ShowOptions, rfc3339, shortest_float32, show_model
from modelbuild.formats.gguf.writer import KeyValue, f32, string, strings, u32, u64
from modelbuild.model_name import parse_name
from modelbuild.store.config import ModelConfig
from modelbuild.store.go_json import encode_go_json
from modelbuild.store.manifest import CONFIG_MEDIA_TYPE, Layer, Manifest, layer_media_type
from modelbuild.store.store import Store
from tests.small_gguf import llama_keys, write_gguf

PLAIN = ShowOptions()
CONFIG = ModelConfig("gguf", "llama", ("llama",), "4K", "F16")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def publish(store: Store, name: str, config: ModelConfig = CONFIG, **layers: bytes) -> None:
    """A model with one layer of each given kind."""
    data = config.encode()
    manifest = Manifest(
        Layer(CONFIG_MEDIA_TYPE, store.blobs.put(data), len(data)),
        tuple(Layer(layer_media_type(kind), store.blobs.put(item), len(item)) for kind, item in layers.items()),
    )
    store.publish(parse_name(name), manifest)


def gguf(*more: KeyValue) -> bytes:
    return write_gguf([*llama_keys(), *more])


def shown(store: Store, options: ShowOptions = PLAIN) -> dict[str, object]:
    found = show_model(store, parse_name("m"), options)
    assert found is not None
    return json.loads(encode_go_json(found))  # type: ignore[no-any-return]


def test_metadata(store: Store) -> None:
    """Numbers are exact and short, long arrays come on request, the template is not repeated among the keys."""
    publish(
        store,
        "m",
        model=gguf(
            u64("llama.x", (1 << 60) + 1),
            f32("llama.scale", 0.95),
            f32("llama.nan", float("nan")),
            strings("tokenizer.ggml.tokens", ["a", "b"]),
            strings("general.tags", []),
            string("tokenizer.chat_template", "{{ messages }}"),
            string("general.name", "N"),
        ),
    )
    info = shown(store)["model_info"]
    assert isinstance(info, dict)

    assert ((1 << 60) + 1, 0.95, None) == (info["llama.x"], info["llama.scale"], info["llama.nan"])
    assert (None, []) == (info["tokenizer.ggml.tokens"], info["general.tags"])
    assert {"general.name", "tokenizer.chat_template"}.isdisjoint(info)
    assert 2 * 32 * 32 + 2 * 32 == info["general.parameter_count"]
    assert sorted(info) == list(info)
    verbose = shown(store, ShowOptions(verbose=True))["model_info"]
    assert isinstance(verbose, dict)
    assert ["a", "b"] == verbose["tokenizer.ggml.tokens"]


def test_a_request_can_lay_texts_over_the_model(store: Store) -> None:
    """System prompt and parameters of the request show in the Modelfile; stored parameters stay as they are."""
    publish(store, "m", model=gguf(), system=b"stored", params=b'{"temperature":1}\n')

    found = shown(store, ShowOptions(system="asked", parameters={"temperature": 0.5}))

    assert "asked" == found["system"]
    assert "SYSTEM asked\nPARAMETER temperature 0.5\n" in str(found["modelfile"])
    assert f"{'temperature':<30} 1" == found["parameters"]


def test_a_projector_alone_is_no_model(store: Store) -> None:
    """A set without a model layer has nothing to show."""
    publish(store, "m", projector=gguf())

    assert show_model(store, parse_name("m")) is None


def test_list(store: Store) -> None:
    """The most recent model comes first; lengths come from the GGUF; a damaged model is left out."""
    publish(store, "old", model=gguf())
    publish(store, "new", model=gguf(), template=b"{{ .Tools }}{{ .Prompt }}")
    publish(store, "broken", model=gguf(string("a.b", "c")))
    next(path for path in (store.root / "blobs").iterdir() if b"a.b" in path.read_bytes()).unlink()
    for name, seconds in (("old", 1000), ("new", 2000), ("broken", 3000)):
        os.utime(store.manifest_path(parse_name(name)), (seconds, seconds))

    found = ModelLister(store).list_models()

    assert ["new:latest", "old:latest"] == [entry["name"] for entry in found]
    assert [["completion", "tools"], ["completion"]] == [entry["capabilities"] for entry in found]
    details = found[0]["details"]
    assert isinstance(details, dict)
    assert (128, 32, "F16") == (
        details["context_length"],
        details["embedding_length"],
        details["quantization_level"],
    )
    assert "1970-01-01T00:33:20Z" == found[0]["modified_at"]


def test_the_list_reads_weights_up_to_the_tokenizer(store: Store) -> None:
    """Keys count behind the one that names the architecture and before the tokenizer, in the order of the file."""
    early, late = u32("llama.context_length", 7), u32("llama.embedding_length", 8)
    name, tokens = string("general.architecture", "llama"), strings("tokenizer.ggml.tokens", ["a"])
    rest = [u32("llama.audio.block_count", 1), u32("llama.vision.block_count", 1)]
    publish(
        store, "m", ModelConfig(), model=write_gguf([early, name, *rest, late, tokens, u32("general.file_type", 7)])
    )

    assert [(None, 8, "", ["audio", "vision", "completion"])] == listed(store)


def test_the_list_takes_no_fact_of_weights_with_a_wrong_type(store: Store) -> None:
    """A length that is no number, or a nameless architecture: then not even a capability is known."""
    publish(
        store,
        "m",
        ModelConfig(),
        model=write_gguf(
            [
                string("general.architecture", "llama"),
                u32("llama.context_length", 7),
                string("llama.embedding_length", "8"),
            ]
        ),
    )

    assert [(None, None, "", None)] == listed(store)


def test_the_list_knows_every_kind_of_whole_number(store: Store) -> None:
    """A file type may have any of them; 0 means F32."""
    kinds = [string("general.architecture", "llama"), u64("llama.context_length", 9), u64("general.file_type", 0)]
    publish(store, "m", ModelConfig(), model=write_gguf(kinds))

    assert [(9, None, "F32", ["completion"])] == listed(store)


def listed(store: Store) -> list[tuple[object, ...]]:
    """Lengths, type and capabilities of each entry of the list."""
    found = json.loads(encode_go_json(ModelLister(store).list_models()))
    keys = ("context_length", "embedding_length", "quantization_level")
    return [(*(entry["details"].get(key) for key in keys), entry.get("capabilities")) for entry in found]


def test_remote_models_are_listed_with_their_host(store: Store) -> None:
    """A remote model has no layers and says where it runs."""
    publish(store, "m", ModelConfig(remote_host="https://h:1", remote_model="big", capabilities=("tools",)))

    (entry,) = ModelLister(store).list_models()

    assert ("big", "https://h:1", ["tools"]) == (entry["remote_model"], entry["remote_host"], entry["capabilities"])


def test_times() -> None:
    """Times have as many decimals as they need."""
    assert ["2001-09-09T01:46:40Z", "2001-09-09T01:46:40.0000005Z"] == [
        rfc3339(10**18),
        rfc3339(10**18 + 500),
    ]


@pytest.mark.parametrize("number", [0.95, 1e-5, 1 / 3, 1e30, 16777216.0, 3.4028234663852886e38, 1.401298464324817e-45])
def test_single_precision_is_shown_short(number: float) -> None:
    """The digits shown are the fewest that give the same single-precision number."""
    import numpy as np

    single = float(np.float32(number))

    assert str(np.float32(number)) == str(np.float32(shortest_float32(single)))
    assert float(repr(np.float32(number)).removeprefix("np.float32(").rstrip(")")) == shortest_float32(single)
