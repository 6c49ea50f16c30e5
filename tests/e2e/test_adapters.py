"""Models with a LoRA adapter in safetensors form: converted in the build, for whatever form the base has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelbuild.formats.gguf.reader import open_gguf
from tests.adapters import ALPHA, RANK, random_pair, write_adapter
from tests.checkpoints import convert, llama_config, llama_tensors, write_checkpoint
from tests.llama_runtime import llama
from tests.small_gguf import llama_keys, write_gguf
from tests.space import Space
from tests.written import write_conversion

PAIRS = {
    "model.layers.0.self_attn.q_proj": random_pair(32, 32),
    "model.layers.1.self_attn.k_proj": random_pair(16, 32, seed=6),
    "model.layers.1.mlp.down_proj": random_pair(32, 48, seed=7),
}
RECIPE = "model: tuned\nfrom: ./base\nadapters: ./adapter\n"


@pytest.fixture
def tuned(space: Space) -> Space:
    """A checkpoint, an adapter for it, and a recipe that puts them together."""
    write_checkpoint(space.root / "base", llama_config(), llama_tensors("F32"))
    write_adapter(space.root / "adapter", PAIRS)
    space.recipe(RECIPE)
    return space


def layers(space: Space, name: str = "tuned") -> dict[str, Path]:
    path = space.store / "manifests" / "registry.ollama.ai" / "library" / name / "latest"
    found = json.loads(path.read_text())["layers"]
    blobs = space.store / "blobs"
    return {item["mediaType"].rpartition(".")[2]: blobs / item["digest"].replace(":", "-") for item in found}


def build(space: Space, *arguments: str) -> str:
    outcome = space.run("build", *arguments)
    assert 0 == outcome.status, outcome.stderr
    return outcome.stdout + outcome.stderr


@pytest.mark.llamacpp
def test_tuned_model_answers_as_the_merged_one(tuned: Space) -> None:
    """Real llama.cpp with both layers gives the logits of a checkpoint into which the adapter was merged."""
    tuned.recipe(f"{RECIPE}quantize: F32\n")
    build(tuned)
    weights = load_file(tuned.root / "base" / "model.safetensors")
    for module, (a, b) in PAIRS.items():
        weights[f"{module}.weight"] += np.float32(ALPHA / RANK) * (b @ a)
    save_file(weights, tuned.root / "base" / "model.safetensors")
    merged = write_conversion(convert(tuned.root / "base", float_type="F32"), tuned.root / "merged.gguf")

    with llama(merged) as model:
        wanted = model.logits([1, 4, 2, 9])
    with llama(layers(tuned)["model"]) as model:
        model.use_adapter(layers(tuned)["adapter"])
        found = model.logits([1, 4, 2, 9])

    np.testing.assert_allclose(found, wanted, atol=0.05, rtol=0)


def test_adapter_of_every_form_of_base_is_one(tuned: Space) -> None:
    """A checkpoint, a GGUF, a stored model and a model of the same recipe as base give the same adapter."""
    build(tuned)
    write_conversion(convert(tuned.root / "base"), tuned.root / "base.gguf")
    tuned.recipe(
        "models:\n"
        "  plain: {from: ./base, quantize: Q8_0}\n"
        "  of-gguf: {from: ./base.gguf, adapters: ./adapter}\n"
        "  of-model: {from: {model: plain}, adapters: ./adapter}\n"
        "  of-quantized: {from: ./base.gguf, quantize: Q8_0, adapters: [./adapter/*.json, ./adapter/*.safetensors]}\n"
    )
    build(tuned)
    tuned.recipe("model: of-stored\nfrom: plain\nadapters: ./adapter\n")
    build(tuned)

    names = ("of-gguf", "of-model", "of-stored")
    assert [layers(tuned)["adapter"]] * 3 == [layers(tuned, name)["adapter"] for name in names]
    by_files = open_gguf(layers(tuned, "of-quantized")["adapter"])  # without the name of a directory
    of_directory = open_gguf(layers(tuned)["adapter"])
    assert [item.name for item in of_directory.tensors] == [item.name for item in by_files.tensors]


def test_adapter_is_rounded_where_ollama_is_followed(tuned: Space) -> None:
    """An adapter keeps its precision; with rewrite_gguf it has the type that Ollama gives it."""
    build(tuned)
    kept = open_gguf(layers(tuned)["adapter"])
    tuned.recipe(f"{RECIPE}rewrite_gguf: true\n")

    build(tuned)

    rounded = open_gguf(layers(tuned)["adapter"])
    assert {"F32"} == {tensor.type.name for tensor in kept.tensors}
    assert {"F16"} == {tensor.type.name for tensor in rounded.tensors}
    assert [(item.name, item.shape) for item in kept.tensors] == [(item.name, item.shape) for item in rounded.tensors]


def test_edits_run_what_they_touch(tuned: Space) -> None:
    """Nothing runs without an edit; an edited adapter is converted again, its base is not."""
    build(tuned)
    assert "nothing to do" in build(tuned)
    before = layers(tuned)
    write_adapter(tuned.root / "adapter", PAIRS, lora_alpha=1.25)

    text = build(tuned)

    assert "convert adapter" in text
    assert "convert base:" not in text
    assert before["model"] == layers(tuned)["model"]
    keys = dict(open_gguf(layers(tuned)["adapter"]).kv.items())
    assert 1.25 == keys["adapter.lora.alpha"].decode()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("model: m\nfrom: ./base\nadapters: [./adapter, ./other]\n", "only one adapter"),
        ("model: m\nfrom: ./base\nadapters: ./empty\n", "adapter_config.json"),
        ("model: m\nfrom: ./base\nadapters: ./ggufs\n", "name the adapter in it"),
        ("model: m\nfrom: ./base\nadapters: ./unfit\n", "does not fit the base model"),
        (
            "model: m\nfrom: ./base\nadapters: ./foreign.gguf\n",
            "the adapter is for 'gemma2', the base model is 'llama'",
        ),
    ],
)
def test_faults_are_found_before_anything_is_written(tuned: Space, recipe: str, said: str) -> None:
    """An adapter that cannot be used stops the build before the base is converted."""
    for name in ("other", "empty", "ggufs"):
        (tuned.root / name).mkdir()
    (tuned.root / "ggufs" / "a.gguf").write_bytes(b"GGUF")
    foreign = llama_keys("gemma2", general__type="adapter", adapter__type="lora")
    tuned.write("foreign.gguf", write_gguf(foreign, {"blk.0.attn_q.weight.lora_a": (4, 32)}))
    write_adapter(tuned.root / "unfit", {"model.layers.0.mlp.down_proj": random_pair(32, 40)})
    tuned.recipe(recipe)

    outcome = tuned.run("build")

    assert outcome.status in (1, 2)
    assert said in outcome.stderr
    assert not list((tuned.store / "blobs").glob("sha256-*"))
