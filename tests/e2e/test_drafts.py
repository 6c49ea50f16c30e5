"""Draft models: a second model beside the first, from GGUF files or from a checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from modelbuild.formats.gguf.reader import open_gguf
from tests.checkpoints import write_checkpoint
from tests.small_gguf import write_gguf
from tests.space import ROOT, Space


def layers(space: Space, name: str) -> dict[str, Path]:
    """The blobs of a model by kind of layer."""
    path = space.store / "manifests" / "registry.ollama.ai" / "library" / name / "latest"
    found = json.loads(path.read_text())["layers"]
    blobs = space.store / "blobs"
    return {item["mediaType"].rpartition(".")[2]: blobs / item["digest"].replace(":", "-") for item in found}


@pytest.mark.parametrize("form", ["./small", "[./small/config.json, ./small/*.safetensors, ./small/tokenizer*]"])
def test_checkpoint_as_draft(space: Space, form: str) -> None:
    """It is the file that a model of its own would have, and the config says what it is."""
    space.write("large.gguf", write_gguf())
    write_checkpoint(space.root / "small")
    space.recipe(
        f"models:\n  fast: {{from: ./large.gguf, draft_files: {form}, draft_quantize: Q4_0}}\n"
        "  small: {from: ./small, quantize: Q4_0}\n"
    )

    space.build()

    found = layers(space, "fast")
    assert "draft" == list(found)[-1]
    config = next(path for path in (space.store / "blobs").iterdir() if b'"draft":{' in path.read_bytes())
    assert {"model_format": "gguf", "architecture": "llama"} == json.loads(config.read_text())["draft"]
    if form == "./small":  # a directory's name becomes the model's name
        assert layers(space, "small")["model"] == found["draft"]
    assert 2 == open_gguf(found["draft"]).kv.get_u32("general.file_type")
    assert "nothing to do" in space.build().stderr


def test_wishes_do_not_reach_the_draft(space: Space) -> None:
    """Metadata and types of single tensors are the model's own."""
    space.write("large.gguf", write_gguf())
    space.write("small.gguf", write_gguf(seed=1))
    space.recipe(
        "model: fast\nfrom: ./large.gguf\nquantize: Q8_0\nmetadata: {general.name: Large}\n"
        "tensor_types: [{pattern: attn_q, type: Q4_0}]\ndraft_files: ./small.gguf\ndraft_quantize: Q8_0\n"
    )

    space.build()

    found = layers(space, "fast")
    assert "Large" == open_gguf(found["model"]).kv.get_string("general.name")
    assert open_gguf(found["draft"]).kv.get_string("general.name") is None
    types = {kind: {tensor.type.name for tensor in open_gguf(path).tensors} for kind, path in found.items()}
    assert ("Q4_0" in types["model"], "Q4_0" in types["draft"]) == (True, False)


def test_broken_draft_is_named(space: Space) -> None:
    """The error stands at the field, before anything is written."""
    space.write("large.gguf", write_gguf())
    (write_checkpoint(space.root / "small") / "config.json").unlink()
    space.recipe("model: fast\nfrom: ./large.gguf\ndraft_files: ./small\n")

    outcome = space.run("build", "recipe.yaml")

    assert 2 == outcome.status
    assert outcome.stderr.startswith("error: recipe.yaml:3:14: ")
    assert "no config.json" in outcome.stderr
    assert set() == space.files()


def test_documented_recipe_builds(space: Space) -> None:
    """The recipe of the page, beside files of the names that it has."""
    found = re.search(r"## Drafts\n.*?```yaml\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
    assert found is not None
    space.write("large.gguf", write_gguf())
    write_checkpoint(space.root / "small-checkpoint")
    space.recipe(found[1])

    space.build()

    assert {"model", "draft"} <= set(layers(space, "fast"))
