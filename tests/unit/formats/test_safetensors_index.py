"""Checkpoints of several files: the index and what it points at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from modelbuild.errors import InputError
from modelbuild.formats.safetensors_index import INDEX_NAME, open_shards, read_index, refuse_two_forms


def checkpoint(directory: Path, weight_map: object, **shards: list[str]) -> dict[str, Path]:
    """An index and shard files with the named tensors; returns all files by base name."""
    index = directory / INDEX_NAME
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    files = {INDEX_NAME: index}
    for name, tensor_names in shards.items():
        path = directory / f"{name}.safetensors"
        safetensors.numpy.save_file({tensor: np.ones(2, np.float32) for tensor in tensor_names}, path)
        files[path.name] = path
    return files


def test_tensors_come_from_the_shards_of_the_index(tmp_path: Path) -> None:
    """Each listed tensor is found in its file, in the order of the index."""
    files = checkpoint(tmp_path, {"b": "two.safetensors", "a": "one.safetensors"}, one=["a"], two=["b"])

    stored = open_shards(files[INDEX_NAME], files)

    assert [("b", "two.safetensors"), ("a", "one.safetensors")] == [(n, t.path.name) for n, t in stored.items()]


SHARD_NAMES = {
    "x01": ("../a.safetensors", "PATH"),
    "x02": ("/tmp/a.safetensors", "PATH"),
    "x03": ("a.bin", "PICKLE"),
    "dots": ("..", "PATH"),
    "backslash": ("..\\a.safetensors", "PATH"),
    "nul": ("a\0.safetensors", "PATH"),
    "empty": ("", "PATH"),
    "gguf": ("a.gguf", "PATH"),
}


@pytest.mark.parametrize("case", SHARD_NAMES)
def test_shard_names_are_plain(case: str, tmp_path: Path) -> None:
    """An index can name nothing but safetensors files beside it."""
    name, code = SHARD_NAMES[case]
    files = checkpoint(tmp_path, {"a": name})

    with pytest.raises(InputError) as caught:
        read_index(files[INDEX_NAME])

    assert code == caught.value.code


def test_tensor_absent_from_its_shard(tmp_path: Path) -> None:
    """x04: a listed tensor that its file does not hold is named."""
    files = checkpoint(tmp_path, {"a": "one.safetensors", "b": "one.safetensors"}, one=["a"])

    with pytest.raises(InputError) as caught:
        open_shards(files[INDEX_NAME], files)

    assert ("ENTRY", "b") == (caught.value.code, caught.value.key)


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    """x05: two files with the same tensor are refused, whatever the index says."""
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"}
    files = checkpoint(tmp_path, weight_map, one=["a"], two=["a", "b"])

    with pytest.raises(InputError) as caught:
        open_shards(files[INDEX_NAME], files)

    assert ("DUPLICATE", "a") == (caught.value.code, caught.value.key)


def test_shard_file_missing(tmp_path: Path) -> None:
    """x06: the error names the file that is missing."""
    files = checkpoint(tmp_path, {"a": "one.safetensors"})

    with pytest.raises(InputError, match=r"one\.safetensors") as caught:
        open_shards(files[INDEX_NAME], files)

    assert caught.value.code == "ENTRY"


def test_index_beside_a_single_file(tmp_path: Path) -> None:
    """x07: two forms of one checkpoint are refused with both names."""
    files = checkpoint(tmp_path, {"a": "model.safetensors"}, model=["a"])

    with pytest.raises(InputError, match=r"model\.safetensors and model\.safetensors\.index\.json"):
        refuse_two_forms(files)


@pytest.mark.parametrize("weight_map", [None, [], "text", {"a": 1}, {"a": None}])
def test_weight_map_of_another_shape(weight_map: object, tmp_path: Path) -> None:
    """x08: the weight map must be an object of texts."""
    files = checkpoint(tmp_path, weight_map)

    with pytest.raises(InputError) as caught:
        read_index(files[INDEX_NAME])

    assert ("CONFIG", "weight_map") == (caught.value.code, caught.value.key)
