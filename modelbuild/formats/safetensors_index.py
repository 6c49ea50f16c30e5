"""Checkpoints of several safetensors files: the index that says which tensor stands in which file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.errors import InputError, printable
from modelbuild.formats.json_text import read_json_object
from modelbuild.formats.safetensors import SafetensorsHeader, StoredTensor, open_safetensors

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
#: An index names every tensor once; those of a trillion weights take 15 MiB.
_INDEX_LIMIT_BYTES = 32 << 20
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_index(path: Path) -> Mapping[str, str]:
    """Tensor name to the base name of its file, in the order of the index.

    Raises InputError CONFIG when `weight_map` is no object of texts, PATH for a file outside the index's directory,
    PICKLE for a file that is no safetensors file.
    """
    weight_map = read_json_object(path, limit_bytes=_INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError("CONFIG", "an object of texts is expected", path=path, key="weight_map")
    for shard in dict.fromkeys(weight_map.values()):
        _check_shard_name(shard, path)
    return weight_map


def open_shards(index: Path, files: Mapping[str, Path]) -> Mapping[str, StoredTensor]:
    """All tensors that an index lists, each from the file the index names; `files` maps base names to paths.

    Raises InputError ENTRY when a file or a tensor is missing, DUPLICATE when two files hold the same tensor, and
    whatever `read_index` and `open_safetensors` raise.
    """
    weight_map = read_index(index)
    headers = {shard: _open_shard(shard, index, files) for shard in dict.fromkeys(weight_map.values())}
    stored = merge_headers(tuple(headers.values()))
    for name, shard in weight_map.items():
        if name not in headers[shard]:
            message = f"the index places it in {printable(shard)}, which does not hold it"
            raise InputError("ENTRY", message, path=index, key=name)
    return {name: stored[name] for name in weight_map}


def merge_headers(headers: tuple[SafetensorsHeader, ...]) -> Mapping[str, StoredTensor]:
    """The tensors of several files together; InputError DUPLICATE when one stands in two of them."""
    merged: dict[str, StoredTensor] = {}
    for header in headers:
        for name, tensor in header.items():
            if name in merged:
                message = f"the tensor stands in {merged[name].path.name} too"
                raise InputError("DUPLICATE", message, path=header.path, key=name)
            merged[name] = tensor
    return merged


def refuse_two_forms(files: Mapping[str, Path]) -> None:
    """InputError DUPLICATE when a checkpoint has both an index and a single file, and nobody said which one counts."""
    if SINGLE_NAME in files and INDEX_NAME in files:
        message = f"the checkpoint has both {SINGLE_NAME} and {INDEX_NAME}"
        hint = "name the files of one of them in the recipe, or remove the other"
        raise InputError("DUPLICATE", message, path=files[INDEX_NAME], hint=hint)


def _open_shard(shard: str, index: Path, files: Mapping[str, Path]) -> SafetensorsHeader:
    if shard not in files:
        message = f"the index names the file {printable(shard)}, which is missing"
        raise InputError("ENTRY", message, path=index, hint="download the missing file or the whole checkpoint again")
    return open_safetensors(files[shard])


def _check_shard_name(shard: str, index: Path) -> None:
    if "/" in shard or "\\" in shard or "\0" in shard or shard in ("", ".", ".."):
        message = f"the index names the file {printable(shard)!r}, a plain base name is expected"
        raise InputError("PATH", message, path=index)
    if shard.endswith(_PICKLE_SUFFIXES):
        message = f"the index names {printable(shard)}, a PyTorch pickle, which can run code and is not read"
        raise InputError("PICKLE", message, path=index, hint="convert the checkpoint to safetensors first")
    if not shard.endswith(".safetensors"):
        message = f"the index names the file {printable(shard)!r}, a name that ends in .safetensors is expected"
        raise InputError("PATH", message, path=index)
