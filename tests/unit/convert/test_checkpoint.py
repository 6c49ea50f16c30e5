"""Which files of a directory count, and what is wrong with those that do not make a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelbuild.convert import Checkpoint
from modelbuild.errors import InputError
from tests.checkpoints import llama_tensors, write_checkpoint, write_safetensors


def code_of(directory: Path) -> str:
    with pytest.raises(InputError) as caught:
        Checkpoint.of_directory(directory)
    return caught.value.code


def test_only_files_a_conversion_uses_are_listed(tmp_path: Path) -> None:
    """Others must not cause a rebuild."""
    directory = write_checkpoint(tmp_path / "m", notes__txt="x", training_args__bin=b"x", README__md="x")
    (directory / "runs").mkdir()

    names = list(Checkpoint.of_directory(directory).files)

    assert ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] == names


def test_modules_and_templates_stand_in_directories(tmp_path: Path) -> None:
    """Pooling settings and named templates belong to the checkpoint."""
    directory = write_checkpoint(tmp_path / "m", modules__json=[])
    for name in ("1_Pooling/config.json", "additional_chat_templates/tool.jinja", "other/config.json"):
        (directory / name).parent.mkdir()
        (directory / name).write_text("{}")

    names = Checkpoint.of_directory(directory).files

    assert "1_Pooling/config.json" in names
    assert "additional_chat_templates/tool.jinja" in names
    assert "other/config.json" not in names


def test_directory_without_configuration(tmp_path: Path) -> None:
    """It is no checkpoint."""
    assert "CONFIG" == code_of(tmp_path)


def test_adapter_directory_is_recognised(tmp_path: Path) -> None:
    """The hint says where adapters go."""
    (tmp_path / "adapter_config.json").write_text("{}")

    with pytest.raises(InputError) as caught:
        Checkpoint.of_directory(tmp_path)

    assert "LoRA adapter" in caught.value.hint


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    """They can run code."""
    directory = write_checkpoint(tmp_path / "m", pytorch_model__bin=b"x")
    (directory / "model.safetensors").unlink()

    with pytest.raises(InputError, match="can run code") as caught:
        Checkpoint.of_directory(directory)

    assert "PICKLE" == caught.value.code


def test_directory_without_weights(tmp_path: Path) -> None:
    """A download that stopped early."""
    directory = write_checkpoint(tmp_path / "m")
    (directory / "model.safetensors").unlink()

    assert "ENTRY" == code_of(directory)


def sharded(directory: Path, *, leave_out: str = "", stray: bool = False) -> Path:
    """Two files and an index."""
    write_checkpoint(directory)
    (directory / "model.safetensors").unlink()
    tensors = list(llama_tensors().items())
    parts = {"model-1.safetensors": dict(tensors[:9]), "model-2.safetensors": dict(tensors[9:])}
    weight_map = {name: part for part, members in parts.items() for name in members}
    if stray:
        parts["model-2.safetensors"]["stray"] = ("F32", (1,))
    for part, members in parts.items():
        if part != leave_out:
            write_safetensors(directory / part, members)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def test_shards_come_in_order_of_names(tmp_path: Path) -> None:
    """Files by name, tensors by name within a file."""
    weights = Checkpoint.of_directory(sharded(tmp_path / "m")).weights()

    places = [(tensor.path.name, tensor.name) for tensor in weights]
    assert sorted(places) == places
    assert 20 == len(places)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    """Before anything else is read."""
    with pytest.raises(InputError, match=r"model-2\.safetensors") as caught:
        Checkpoint.of_directory(sharded(tmp_path / "m", leave_out="model-2.safetensors"))

    assert "ENTRY" == caught.value.code


def test_tensor_that_the_index_does_not_list(tmp_path: Path) -> None:
    """The files belong to different versions."""
    checkpoint = Checkpoint.of_directory(sharded(tmp_path / "m", stray=True))

    with pytest.raises(InputError, match="does not list") as caught:
        checkpoint.weights()

    assert "stray" == caught.value.key


def test_index_beside_a_single_file(tmp_path: Path) -> None:
    """Nobody said which one counts."""
    directory = sharded(tmp_path / "m")
    write_safetensors(directory / "model.safetensors", {"a": ("F32", (1,))})

    assert "DUPLICATE" == code_of(directory)
