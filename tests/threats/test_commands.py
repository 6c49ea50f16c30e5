"""Mutated inputs through the real commands: one clear message, the right exit status, nothing left behind."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest

from modelbuild.formats.gguf.writer import f32, string
from tests.adapters import random_pair, write_adapter
from tests.checkpoints import write_checkpoint
from tests.property.test_format_fuzz import mutate
from tests.small_gguf import llama_keys, write_gguf
from tests.space import Space

#: Mutations of each input; MODELBUILD_MUTATIONS asks for more.
MUTATIONS = int(os.environ.get("MODELBUILD_MUTATIONS", "12"))
_JSON_PIECES = (b"null", b"-1", b"1e999", b"[]", b"{}", b'""', b"true", b'"a"', b"18446744073709551616", b"NaN")
_CHECKPOINT = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
_ADAPTER = ("lora/adapter_config.json", "lora/adapter_model.safetensors")
RECIPES = {
    "model.gguf": "model: n\nfrom: ./model.gguf\n",
    "requantized.gguf": "model: n\nfrom: ./requantized.gguf\nquantize: Q8_0\n",
    **{f"c/{name}": "model: n\nfrom: ./c\nquantize: Q8_0\n" for name in _CHECKPOINT},
    "chat.tmpl": "model: n\nfrom: m\ntemplate: {file: chat.tmpl}\n",
}


@pytest.fixture
def place(space: Space) -> Space:
    """A good model in the store, and valid inputs of every kind."""
    space.write("model.gguf", write_gguf())
    space.write("requantized.gguf", write_gguf())
    space.write("chat.tmpl", "{{ if .System }}{{ .System }}{{ end }}{{ range .Messages }}{{ .Content }}{{ end }}")
    space.write("recipe.yaml", "model: m\nfrom: ./model.gguf\nsystem: Be kind.\nparameters: {temperature: 0.5}\n")
    space.write("Modelfile", 'FROM ./model.gguf\nSYSTEM """Be\nkind."""\nPARAMETER temperature 1\nMESSAGE user hi\n')
    write_checkpoint(space.root / "c")
    space.build()
    assert 0 == space.run("export", "m", "-o", "models.tar").status
    return space


def attempt(space: Space, *arguments: str) -> int:
    """Run a command; whatever the input, its end is one of those that are documented."""
    before = space.files()
    outcome = space.run(*arguments)
    assert outcome.status in (0, 1, 2), arguments
    assert "Traceback" not in outcome.stderr + outcome.stdout, arguments
    assert "internal error" not in outcome.stderr, (arguments, outcome.stderr)
    assert not any(char in outcome.stderr for char in "\x1b\x07\x9b\u202e"), arguments
    if outcome.status:
        assert outcome.stderr.strip(), arguments
        assert before == space.files(), arguments
    assert {"blobs", "manifests"} >= set(os.listdir(space.store)), arguments
    return outcome.status


def mutations(data: bytes, name: str) -> list[bytes]:
    """The same in every run."""
    chance = random.Random(f"2026 {name}")
    pieces = () if name.endswith((".gguf", ".tar")) else _JSON_PIECES
    return [mutate(data, chance, pieces) for _ in range(MUTATIONS)]


@pytest.mark.parametrize("name", RECIPES)
def test_building_from_mutated_inputs(place: Space, name: str) -> None:
    """`build` and `plan` of weights, configuration, tokenizer and template that were changed at random."""
    path = place.root / name
    good = path.read_bytes()
    place.recipe(RECIPES[name])
    for data in mutations(good, name):
        path.unlink()  # the store may hold a link to it
        path.write_bytes(data)
        attempt(place, "plan", "recipe.yaml")
        attempt(place, "build", "recipe.yaml")


@pytest.mark.parametrize(
    "name", ["model.gguf", "adapter.gguf", "matrix.gguf", *(f"c/{name}" for name in _CHECKPOINT), *_ADAPTER]
)
def test_inspecting_mutated_inputs(place: Space, name: str) -> None:
    """`inspect` of a file that was changed at random, or of the directory that holds it, ends with an answer."""
    keys = [*llama_keys(general__type="adapter", adapter__type="lora"), f32("adapter.lora.alpha", 8.0)]
    place.write("adapter.gguf", write_gguf(keys, {"q.lora_a": (4, 32), "q.lora_b": (32, 4)}))
    place.write("matrix.gguf", write_gguf([string("general.type", "imatrix")], {"q.in_sum2": (1, 32)}))
    write_adapter(place.root / "lora", {"model.layers.0.self_attn.q_proj": random_pair(32, 32)})
    path = place.root / name
    shown = name.partition("/")[0]
    for data in mutations(path.read_bytes(), name):
        path.unlink()
        path.write_bytes(data)
        for arguments in (["inspect", shown], ["inspect", shown, "--json"]):
            outcome = place.run(*arguments)
            assert outcome.status in (0, 1), arguments
            assert outcome.stdout.strip() or outcome.stderr.startswith("error: ")
            assert "Traceback" not in outcome.stderr + outcome.stdout
            assert "internal error" not in outcome.stderr, outcome.stderr
            assert not any(char in outcome.stdout for char in "\x1b\x07\x9b\u202e")
            assert not outcome.stdout.startswith("{") or json.loads(outcome.stdout)["version"] == 1


@pytest.mark.parametrize("name", ["recipe.yaml", "Modelfile"])
def test_commands_on_mutated_recipes(place: Space, name: str) -> None:
    """`validate`, `plan` and `build` of a recipe or Modelfile that was changed at random."""
    path = place.root / name
    for data in mutations(path.read_bytes(), name):
        path.write_bytes(data)
        for command in ("validate", "plan", "build"):
            attempt(place, command, name)


def test_importing_mutated_archives(place: Space) -> None:
    """`import` takes an archive as a whole or not at all."""
    path = place.root / "models.tar"
    assert 0 == place.run("rm", "m").status
    for data in mutations(path.read_bytes(), path.name):
        path.write_bytes(data)
        attempt(place, "import", "models.tar", "--force")
        shutil.rmtree(place.store)
        place.store.mkdir()


@pytest.mark.parametrize("name", ["manifest", "config", "params"])
def test_reading_mutated_stores(place: Space, name: str) -> None:
    """`list`, `show`, `verify` and `render` of a store whose documents were changed at random."""
    manifest = place.store / "manifests/registry.ollama.ai/library/m/latest"
    document = json.loads(manifest.read_bytes())
    layers = {layer["mediaType"].rpartition(".")[2]: layer for layer in document["layers"]}
    layer = {"config": document["config"], "params": layers["params"]}.get(name)
    path = manifest if layer is None else place.store / "blobs" / layer["digest"].replace(":", "-")
    good = path.read_bytes()
    for data in mutations(good, name):
        path.write_bytes(data)
        if layer is not None:
            layer["size"] = len(data)
            manifest.write_text(json.dumps(document))
        for arguments in (
            ["list"],
            ["show", "m"],
            ["show", "m", "--json"],
            ["verify"],
            ["render", "m", "--prompt", "a"],
        ):
            attempt(place, *arguments)


def test_rendering_mutated_templates(place: Space) -> None:
    """`render` of a template, and of messages, that were changed at random."""
    messages = b'[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]'
    for data in mutations((place.root / "chat.tmpl").read_bytes(), "template"):
        place.write("bad.gotmpl", data)
        attempt(place, "render", "./bad.gotmpl", "--prompt", "hello")
    for data in mutations(messages, "messages"):
        place.write("messages.json", data)
        attempt(place, "render", "./chat.tmpl", "--messages", "messages.json")
