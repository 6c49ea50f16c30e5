"""The documented contract of `POST /api/create`: its fields and its examples, as recipes and as raw requests.

The page's examples build on a published `llama3.2`, which is quantized already; here a model of that name stands in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import modelbuild
from modelbuild.engine.describe import ModelDetails
from modelbuild.formats.gguf.writer import string
from modelbuild.recipe.request import RequestError
from modelbuild.store.store import Store
from tests.checkpoints import llama_tensors, write_checkpoint, write_safetensors
from tests.small_gguf import llama_keys, write_gguf
from tests.space import Space

#: A matrix with rows of 256 weights, so that Q4_K_M really is what its name says.
TENSORS = {"token_embd.weight": (32, 256), "output_norm.weight": (256,), "blk.0.ffn_down.weight": (32, 256)}
EXAMPLES: Mapping[str, dict[str, object]] = {
    "from a base model": {
        "model": "my-custom-model",
        "from": "llama3.2",
        "system": "You are a helpful coding assistant.",
        "parameters": {"temperature": 0.7, "top_p": 0.9},
    },
    "with quantization": {"model": "my-quantized-model", "from": "llama3.2", "quantize": "Q4_K_M"},
    "non-streaming": {"model": "my-model", "from": "llama3.2", "stream": False},
}


@pytest.fixture
def place(space: Space, monkeypatch: pytest.MonkeyPatch) -> Space:
    """A store that holds `llama3.2`, packed as Q4_K_M."""
    for name, value in space.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(space.root)
    space.write("model.gguf", write_gguf(tensors=TENSORS))
    modelbuild.build({"model": "llama3.2", "from": "./model.gguf", "quantize": "Q4_K_M"})
    return space


def both_ways(place: Space, body: dict[str, object]) -> ModelDetails:
    """The model of a request body, built as a recipe; created from the raw body it has the same digest."""
    place.write("body.json", json.dumps(body, indent=2))
    outcome = place.run("build", "body.json")
    assert 0 == outcome.status, outcome.stderr
    built = modelbuild.show(str(body["model"]))
    assert built.digest == modelbuild.create({**body, "model": "as-request"}).digest
    return built


def upload(place: Space, *paths: Path) -> dict[str, str]:
    """What `POST /api/blobs` leaves: blobs, and the map of names to digests that a request gives."""
    blobs = Store(place.store).blobs
    return {path.name: blobs.put(path.read_bytes()) for path in paths}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_from_a_base(place: Space, name: str) -> None:
    """Each gives a model on the base's weights, which are taken as they are: they have the wanted type already."""
    details = both_ways(place, EXAMPLES[name])

    base = modelbuild.show("llama3.2")
    (weights,) = details.manifest.of_kind("model")
    assert ("llama3.2:latest", base.manifest.of_kind("model")[0].digest) == (weights.from_, weights.digest)
    assert "Q4_K_M" == details.config.file_type
    assert EXAMPLES[name].get("parameters", {}) == details.parameters
    assert EXAMPLES[name].get("system", "") == details.system


def test_example_from_a_gguf_file(place: Space) -> None:
    """The uploaded file is the model's layer, under the name that the request gives."""
    files = upload(place, place.root / "model.gguf")

    (layer,) = both_ways(place, {"model": "my-gguf-model", "files": files}).manifest.layers

    assert ("model.gguf", files["model.gguf"]) == (layer.from_, layer.digest)


def test_example_from_safetensors(place: Space) -> None:
    """Two shards, configuration and tokenizer, as separate uploads, become one GGUF layer."""
    checkpoint = place.root / "checkpoint"
    write_checkpoint(checkpoint)
    tensors = list(llama_tensors().items())
    for index, part in enumerate((tensors[:5], tensors[5:])):
        write_safetensors(checkpoint / f"model-{index + 1:05}-of-00002.safetensors", dict(part))
    (checkpoint / "model.safetensors").unlink()
    files = upload(place, *sorted(checkpoint.iterdir()))

    details = both_ways(place, {"model": "my-st-model", "files": files})

    assert ["model"] == [layer.kind for layer in details.manifest.layers]
    assert ("gguf", "llama") == (details.config.model_format, details.config.model_family)


#: A field of the page, a value for it, and what it shows as.
FIELDS: list[tuple[str, object, Callable[[ModelDetails], object], object]] = [
    ("template", "{{ .Prompt }}", lambda it: it.template, "{{ .Prompt }}"),
    ("system", "Be brief.", lambda it: it.system, "Be brief."),
    ("license", "MIT", lambda it: it.licenses, ("MIT",)),
    ("license", ["MIT", "Apache-2.0"], lambda it: it.licenses, ("MIT", "Apache-2.0")),
    ("parameters", {"top_k": 4, "stop": ["a"]}, lambda it: it.parameters, {"top_k": 4, "stop": ["a"]}),
    ("messages", [{"role": "user", "content": "x"}], lambda it: it.messages, ({"role": "user", "content": "x"},)),
    ("renderer", "r", lambda it: it.config.renderer, "r"),
    ("parser", "harmony", lambda it: it.config.parser, "harmony"),
    ("requires", "0.14.0", lambda it: it.config.requires, "0.14.0"),
    ("info", {"context_length": 64}, lambda it: it.config.context_length, 64),
    ("quantize", "q4_k_m", lambda it: it.config.file_type, "Q4_K_M"),
    ("remote_host", "https://example.com", lambda it: it.config.remote_host, "https://example.com:11434"),
    ("stream", True, lambda it: len(it.manifest.layers), 1),
]


@pytest.mark.parametrize(("field", "value", "shown", "expected"), FIELDS)
def test_every_field_has_its_effect(
    place: Space, field: str, value: object, shown: Callable[[ModelDetails], object], expected: object
) -> None:
    """A field reaches manifest or config, the same from a recipe and from a request."""
    assert expected == shown(both_ways(place, {"model": "m", "from": "llama3.2", field: value}))


def test_adapters_field(place: Space) -> None:
    """A map of names to digests adds a layer behind the base's."""
    path = place.write("lora.gguf", write_gguf([*llama_keys(), string("general.type", "adapter")]))

    details = both_ways(place, {"model": "m", "from": "llama3.2", "adapters": upload(place, path)})

    assert ["model", "adapter"] == [layer.kind for layer in details.manifest.layers]


@pytest.mark.parametrize("type_", ["Q4_0", "Q5_K_M", "Q8_0"])
def test_every_type_that_the_page_names(place: Space, type_: str) -> None:
    """Whichever type is asked for is made from weights that are not packed yet."""
    files = upload(place, place.root / "model.gguf")

    assert type_ == both_ways(place, {"model": "m", "files": files, "quantize": type_}).config.file_type


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "bad name", "from": "llama3.2"}, 400),
        ({"from": "llama3.2"}, 400),
        ({"model": "m"}, 400),
        ({"model": "m", "from": "llama3.2", "files": {"a.gguf": "sha256:" + "0" * 64}}, 400),
        ({"model": "m", "files": {"../a.gguf": "sha256:" + "0" * 64}}, 400),
        ({"model": "m", "from": "nowhere"}, 404),
    ],
)
def test_every_error_that_the_page_names(place: Space, body: dict[str, object], status: int) -> None:
    """A bad name, a missing field, both sources, a path that leads out are 400, a missing base 404."""
    with pytest.raises(RequestError) as caught:
        modelbuild.create(body)

    assert status == caught.value.status
    place.write("body.json", json.dumps(body))
    assert 2 == place.run("build", "body.json").status


def test_documented_lines_come_in_the_documented_order(place: Space) -> None:
    """Among the lines of the stream stand those of the page's example."""
    from modelbuild.engine.create import Status, create_model
    from modelbuild.recipe.request import parse_create_request
    from modelbuild.store.state import State

    lines: list[Status] = []
    state = State(place.cache)
    try:
        request = parse_create_request(json.dumps(EXAMPLES["from a base model"]).encode())
        create_model(request, Store(place.store), state, lines.append)
    finally:
        state.close()

    wanted = ["parsing modelfile", "looking up model manifest", "creating model layer", "writing manifest", "success"]
    assert wanted == [line.text for line in lines if line.text in wanted]
