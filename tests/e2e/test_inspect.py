"""`inspect`: what a path is, what a build would make of it, and everything that would go wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelbuild.engine.inspect import inspect_path
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import f32, string, strings, u32
from tests import vision_checkpoints
from tests.adapters import random_pair, write_adapter
from tests.checkpoints import (
    bpe_tokenizer,
    llama_config,
    llama_tensors,
    write_checkpoint,
    write_safetensors,
    write_sparse,
)
from tests.small_gguf import llama_keys, projector_keys, write_gguf, write_shards
from tests.space import ROOT, Space

#: Makes one tensor of a checkpoint larger than any disk of a test, of which only name and shape may be looked at.
LARGE_ROWS = 100_000_000


def inspect(space: Space, path: str, status: int = 0) -> dict[str, Any]:
    """The JSON answer; everything of it is shown to people as well."""
    outcome = space.run("inspect", path, "--json")
    assert status == outcome.status, outcome.stderr
    assert status == space.run("inspect", path).status
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


def read_bytes() -> int:
    """How many bytes this process has read so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def built_size(space: Space, source: str, quantize: str) -> int:
    """The size of the model's weights as a build makes them."""
    space.recipe(f"model: sized\nfrom: ./{source}\n" + (f"quantize: {quantize}\n" if quantize else ""))
    space.build()
    manifest = space.store / "manifests" / "registry.ollama.ai" / "library" / "sized" / "latest"
    layers = json.loads(manifest.read_text())["layers"]
    return int(next(item["size"] for item in layers if item["mediaType"].endswith(".model")))


@pytest.mark.parametrize("source", ["checkpoint", "model.gguf"])
def test_sizes_are_those_of_a_build(space: Space, source: str) -> None:
    """For every type shown, a build makes a file of exactly that size."""
    write_checkpoint(space.root / "checkpoint")
    space.write("model.gguf", write_gguf())

    files = inspect(space, source)["files"]

    assert ["", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"] == [item["quantize"] for item in files]
    for item in files[::4]:
        assert item["size_bytes"] == built_size(space, source, item["quantize"])


def test_checkpoint(space: Space) -> None:
    """Architecture, source types, tokenizer with evidence, template with its file and name."""
    template = (ROOT / "modelbuild/template/known_templates/index.json").read_text()
    chatml = json.loads(template)["index"][1]["chat_template"]
    write_checkpoint(space.root / "c", tokenizer_config__json={"chat_template": chatml})

    facts = inspect(space, "c")["facts"]

    assert ("llama", "LlamaForCausalLM") == (facts["architecture"], facts["class"])
    assert {"BF16": 20} == facts["types"]
    assert ("byte-level BPE", 12, "llama-bpe") == (facts["tokenizer"], facts["tokens"], facts["pre_tokenizer"])
    assert "split expressions are those of this name" in facts["pre_tokenizer_by"]
    assert "tokenizer_config.json" == facts["chat_template_in"]
    assert "chatml (the same text" in facts["chat_template"]


def test_all_problems_of_a_checkpoint_at_once(space: Space) -> None:
    """Wrong tensors and an unknown pre-tokenizer are both told; the facts that are known are shown."""
    tensors = llama_tensors()
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = ("BF16", (47, 32))
    tensors["model.extra.weight"] = ("BF16", (2,))
    write_checkpoint(space.root / "c", tensors=tensors, tokenizer__json=bpe_tokenizer(pre_tokenizer={"type": "Odd"}))

    found = inspect(space, "c", status=1)

    text = "\n".join(item["message"] for item in found["problems"])
    for part in ("model.norm.weight", "47 × 32, expected 48 × 32", "model.extra.weight", "no known pre-tokenizer fits"):
        assert part in text
    assert [] == found["files"]
    assert {"BF16": 20} == found["facts"]["types"]


def test_unsupported_architecture_has_near_matches(space: Space) -> None:
    """And what else is wrong with the checkpoint, although no table says what it should be."""
    config = llama_config(architectures=["LamaForCausalLM"], quantization_config={"quant_method": "gptq"})
    write_checkpoint(space.root / "c", config)

    found = inspect(space, "c", status=1)

    assert {"ARCHITECTURE", "QUANTIZED"} == {item["code"] for item in found["problems"]}
    assert "LlamaForCausalLM" in "".join(item["hint"] for item in found["problems"])


def test_vision_part_is_announced(space: Space) -> None:
    """A projector of its own, with its size, once for all types."""
    vision_checkpoints.gemma3(space.root / "seeing")

    found = inspect(space, "seeing")

    assert found["facts"]["vision"].startswith("gemma3")
    assert ["projector"] == [item["layer"] for item in found["files"] if item["layer"] != "model"]


def test_gguf_kinds(space: Space) -> None:
    """Models, quantized ones, projectors, adapters and shards are told apart by their metadata."""
    space.write("model.gguf", write_gguf())
    space.write("projector.gguf", write_gguf(projector_keys(typed=True), {"v.patch": (2, 32)}))
    adapter = [*llama_keys(general__type="adapter", adapter__type="lora"), f32("adapter.lora.alpha", 8.0)]
    pair = {"blk.0.attn_q.weight.lora_a": (4, 32), "blk.0.attn_q.weight.lora_b": (32, 4)}
    space.write("adapter.gguf", write_gguf(adapter, pair))
    for index, data in enumerate(write_shards()):
        space.write(f"s/m-{index + 1:05}-of-00002.gguf", data)

    kinds = {
        path: inspect(space, path)["kind"]
        for path in ("model.gguf", "projector.gguf", "adapter.gguf", "s/m-00002-of-00002.gguf", "s")
    }

    assert {
        "model.gguf": "a GGUF model",
        "projector.gguf": "a GGUF projector",
        "adapter.gguf": "a GGUF adapter",
        "s/m-00002-of-00002.gguf": "shard 2 of 2 of a GGUF model",
        "s": "a directory of GGUF files",
    } == kinds
    assert {"modules": 1, "ranks": ["4"], "alpha": 8.0}.items() <= inspect(space, "adapter.gguf")["facts"].items()
    assert "mlp" == inspect(space, "projector.gguf")["facts"]["projector"]
    assert 4 == inspect(space, "s/m-00002-of-00002.gguf")["facts"]["tensors"]


def test_missing_shard_is_a_problem(space: Space) -> None:
    """A shard without its sisters is described, and a build of it would fail."""
    space.write("m-00001-of-00002.gguf", write_shards()[0])

    assert ["PATH"] == [item["code"] for item in inspect(space, "m-00001-of-00002.gguf", status=1)["problems"]]


@pytest.mark.parametrize(("name", "code"), [("m-00009-of-00002.gguf", "PATH"), ("m.gguf", "SHARDS")])
def test_misnamed_shard_is_a_problem(space: Space, name: str, code: str) -> None:
    """A shard under a name that no shard of its model has is described by itself, and a build of it would fail."""
    space.write(name, write_shards()[0])

    found = inspect(space, name, status=1)

    assert (2, [code]) == (found["facts"]["tensors"], [item["code"] for item in found["problems"]])


def test_quantized_gguf_says_what_another_type_needs(space: Space) -> None:
    """It is imported as it is; that is no problem, and the way to another type is a note."""
    space.write("model.gguf", write_gguf())
    space.recipe("model: packed\nfrom: ./model.gguf\nquantize: Q8_0\noutputs: {gguf: packed.gguf}\n")
    space.build()

    found = inspect(space, "packed.gguf")

    assert ["import packed.gguf"] == [item["action"] for item in found["files"]]
    assert "allow_requantize" in found["notes"][0]


def test_adapter(space: Space) -> None:
    """Rank, alpha, modules and base of a LoRA adapter; a pair that is none is a problem."""
    module = "model.layers.0.self_attn.q_proj"
    write_adapter(
        space.root / "lora", {module: random_pair(32, 32)}, base_model_name_or_path="org/base", use_rslora=True
    )

    found = inspect(space, "lora")

    assert "a LoRA adapter" == found["kind"]
    wanted = {"trained_on": "org/base", "rank": 3, "alpha": 7.5, "rank_stabilized": True, "modules": {"q_proj": 1}}
    assert wanted.items() <= found["facts"].items()
    write_safetensors(space.root / "lora" / "adapter_model.safetensors", {"odd": ("F32", (2,))})
    (space.root / "lora" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 3}')
    assert 2 == len(inspect(space, "lora", status=1)["problems"])


def test_importance_matrix(space: Space) -> None:
    """The form in GGUF is told by its type: entries, what it was measured with, how to use it."""
    name = "blk.0.attn_q.weight"
    keys = [string("general.type", "imatrix"), strings("imatrix.datasets", ["wiki.txt"])]
    keys += [u32("imatrix.chunk_count", 2), u32("imatrix.chunk_size", 512)]
    tensors = {f"{name}.in_sum2": (1, 32), f"{name}.counts": (1, 1)}
    space.write("matrix.gguf", write_gguf(keys, tensors, type_=GgmlType.F32))

    found = inspect(space, "matrix.gguf")

    assert "an importance matrix" == found["kind"]
    assert (1, ["wiki.txt"]) == (found["facts"]["entries"], found["facts"]["measured_with"])
    assert "imatrix: ./matrix.gguf" == found["use"]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("missing", None, "no such file"),
        ("notes.txt", b"hello", "neither GGUF nor safetensors"),
        ("weights.bin", b"\x80\x02}", "a Python pickle"),
        ("old.bin", b"anything", "PyTorch pickle"),
        ("page.gguf", b"<!DOCTYPE html>", "an HTML page"),
        ("cut.gguf", write_gguf()[:100], "offset"),
        ("empty", b"", "neither GGUF nor safetensors"),
        ("recipe.yaml", b"model: m\n", "hint: is it a recipe? 'modelbuild validate' checks it"),
        ("cut.safetensors", b"\xff" * 12, "cut.safetensors"),
        ("cut.dat", b"\x01\x00", "cut.dat"),
    ],
)
def test_unfit_files(space: Space, name: str, data: bytes | None, expected: str) -> None:
    """One clear error for what cannot be told anything about."""
    if data is not None:
        space.write(name, data)

    outcome = space.run("inspect", name)

    assert 1 == outcome.status
    assert outcome.stderr.startswith("error: ")
    assert expected in outcome.stderr


def test_large_checkpoint_is_not_read(space: Space) -> None:
    """Gigabytes of weights are described from their header."""
    tensors = llama_tensors() | {"model.layers.0.mlp.up_proj.weight": ("BF16", (LARGE_ROWS, 32))}
    write_checkpoint(space.root / "c")
    write_sparse(space.root / "c" / "model.safetensors", tensors)
    inspect_path(space.root / "c")
    before = read_bytes()

    found = inspect_path(space.root / "c")

    assert "expected 48 × 32" in str(found.problems[0])
    assert read_bytes() - before < 4 << 20


def test_documented_output(space: Space) -> None:
    """The page shows what the command prints for the example file."""
    shown = re.search(r"\$ modelbuild inspect tiny.gguf\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
    assert shown is not None
    shutil.copy(ROOT / "examples/gguf/tiny.gguf", space.root)

    assert shown[1] == space.run("inspect", "tiny.gguf").stdout
