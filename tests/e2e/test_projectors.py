"""Checkpoints with a vision part: one build makes the model and its projector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelbuild.formats.gguf.reader import open_gguf
from tests import vision_checkpoints
from tests.llama_runtime import llama
from tests.projector_runtime import see
from tests.space import Space


def layers(space: Space, name: str) -> dict[str, Path]:
    path = space.store / "manifests" / "registry.ollama.ai" / "library" / name / "latest"
    found = json.loads(path.read_text())["layers"]
    blobs = space.store / "blobs"
    return {item["mediaType"].rpartition(".")[2]: blobs / item["digest"].replace(":", "-") for item in found}


@pytest.mark.llamacpp
def test_one_checkpoint_makes_a_model_and_a_projector(space: Space) -> None:
    """Real llama.cpp loads both layers and makes tokens of a picture; the model's type is not the projector's."""
    checkpoint = vision_checkpoints.gemma3(space.root / "gemma")
    space.recipe("model: seeing\nfrom: ./gemma\nquantize: Q8_0\n")

    space.build()

    found = layers(space, "seeing")
    assert ["model", "projector"] == list(found)[:2]
    assert 7 == open_gguf(found["model"]).kv.get_u32("general.file_type")
    assert "mmproj" == open_gguf(found["projector"]).kv.get_string("general.type")
    with llama(found["model"]) as model:
        tokens = see(model, found["projector"], checkpoint.picture)
    assert (4, model.width) == tokens.shape
    assert np.isfinite(tokens).all()


def test_types_of_a_matrix_share_one_projector(space: Space) -> None:
    """The projector is made once for all; models that build on one take it over; nothing runs twice."""
    vision_checkpoints.mistral3(space.root / "mistral")
    space.recipe(
        "models:\n"
        "  each:\n"
        "    from: ./mistral\n"
        "    model: seeing-${quantize}\n"
        "    matrix: {quantize: [F16, Q8_0]}\n"
        "  below: {from: {model: plain}, system: Describe pictures.}\n"
        "  plain: {from: ./mistral}\n"
    )

    space.build()

    projectors = {layers(space, name)["projector"] for name in ("seeing-F16", "seeing-Q8_0", "below", "plain")}
    assert 1 == len(projectors)
    assert "nothing to do" in space.build().stderr


def test_what_is_shown_names_the_projector(space: Space) -> None:
    """The layer stands beside the model's in what is shown, and in its Modelfile."""
    vision_checkpoints.gemma3(space.root / "gemma")
    space.recipe("model: seeing\nfrom: ./gemma\n")
    space.build()

    shown = space.run("show", "seeing")

    assert 0 == shown.status, shown.stderr
    assert "projector" in shown.stdout
    modelfile = space.run("show", "seeing", "--modelfile").stdout
    assert 2 == sum(line.startswith("FROM ") for line in modelfile.splitlines())


def test_vision_parts_without_a_table_are_said_to_be_left_out(space: Space) -> None:
    """The text model is built, and the user is told."""
    checkpoint = vision_checkpoints.mistral3(space.root / "other")
    config = json.loads((checkpoint.directory / "config.json").read_text())
    config["vision_config"]["model_type"] = "another"
    (checkpoint.directory / "config.json").write_text(json.dumps(config))
    space.recipe("model: blind\nfrom: ./other\n")

    outcome = space.build()

    assert "projector" not in layers(space, "blind")
    assert "sees no pictures" in outcome.stdout + outcome.stderr


def test_copy_without_the_vision_part_is_a_text_model(space: Space) -> None:
    """Some fine-tunes keep the class and leave the encoder out; that is said, and no error."""
    checkpoint = vision_checkpoints.gemma3(space.root / "gemma")
    text = {name: values for name, values in checkpoint.weights.items() if name.startswith("language_model.")}
    save_file(text, space.root / "gemma" / "model.safetensors")
    space.recipe("model: blind\nfrom: ./gemma\n")

    outcome = space.build()

    assert "projector" not in layers(space, "blind")
    assert "the weights of the vision part are not in the checkpoint" in outcome.stderr
