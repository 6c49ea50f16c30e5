"""Tells from names and first bytes what a path is, without reading more than a few bytes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path

from modelbuild.errors import InputError
from modelbuild.formats.files import does_exist, is_directory, list_directory, open_input

GGUF_MAGIC = b"GGUF"
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class SourceKind(enum.Enum):
    """What weights can come from."""

    GGUF = "a GGUF file"
    CHECKPOINT = "a checkpoint directory"
    GGUF_DIRECTORY = "a directory of GGUF files"


def identify_path(path: Path) -> SourceKind:
    """The kind of source at a path; InputError with what was found when it is none."""
    if is_directory(path):
        return _identify_directory(path)
    if not does_exist(path):
        raise InputError("PATH", "no such file or directory", path=path)
    return identify_files({path.name: path})


def _identify_directory(path: Path) -> SourceKind:
    """A checkpoint, unless there are GGUF files and no safetensors."""
    suffixes = {entry.suffix for entry in list_directory(path)}
    has_gguf_only = ".gguf" in suffixes and ".safetensors" not in suffixes
    return SourceKind.GGUF_DIRECTORY if has_gguf_only else SourceKind.CHECKPOINT


def identify_files(files: Mapping[str, Path]) -> SourceKind:
    """The kind of a set of named files: by extension first, then by their first bytes."""
    if any(name.endswith(".safetensors") for name in files):
        return SourceKind.CHECKPOINT
    if any(name.endswith(".gguf") or starts_as_gguf(path) for name, path in files.items()):
        return SourceKind.GGUF
    name, path = next(iter(files.items()))
    if name.endswith(_PICKLE_SUFFIXES):
        raise InputError(
            "PICKLE",
            "a PyTorch pickle can run code and is not read",
            path=path,
            hint="convert the checkpoint to safetensors first",
        )
    hint = "weights are a .gguf file, or a directory with config.json, a tokenizer and *.safetensors"
    if name.endswith((".yaml", ".yml")):
        hint = "is it a recipe? 'modelbuild validate' checks it, 'modelbuild plan' shows what a build would do"
    raise InputError("MAGIC", "unknown type: neither GGUF nor safetensors", path=path, hint=hint)


def starts_as_gguf(path: Path) -> bool:
    """Does the file begin with the GGUF magic?"""
    with open_input(path) as source:
        return source.size_bytes >= len(GGUF_MAGIC) and source.read_at(0, len(GGUF_MAGIC)) == GGUF_MAGIC
