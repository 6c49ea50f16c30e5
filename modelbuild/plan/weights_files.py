"""The files that weights come from: which there are, as inputs of actions, and what their configuration says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from modelbuild.errors import Position
from modelbuild.formats.json_text import read_json_object
from modelbuild.plan.action import DigestInput, FileInput
from modelbuild.plan.gguf_units import sibling_names
from modelbuild.plan.graph import source_role
from modelbuild.recipe.resolved import FileEntry


def entries_of(path: Path, position: Position) -> list[FileEntry]:
    """The file a path names, with its sister shards when it is one of several."""
    return [FileEntry(name, path.with_name(name), position) for name in sibling_names(path.name)]


def file_input(entry: FileEntry, index: int) -> FileInput | DigestInput:
    """A GGUF as the source of that number."""
    role = source_role(index)
    if isinstance(entry.content, Path):
        return FileInput(role, entry.content)
    return DigestInput(role, entry.content)


def checkpoint_input(entry: FileEntry) -> FileInput | DigestInput:
    """Weights are followed tensor by tensor, so that one changed tensor does not repack the others."""
    if isinstance(entry.content, Path):
        return FileInput(entry.name, entry.content, by_tensor=entry.content.suffix == ".safetensors")
    return DigestInput(entry.name, entry.content)


def config_of(files: Mapping[str, Path]) -> Mapping[str, object]:
    """config.json; empty when it is missing, which the conversion reports."""
    return read_json_object(files["config.json"], allow_nonfinite=True) if "config.json" in files else {}


def is_fp8(config: Mapping[str, object]) -> bool:
    """Does a configuration say that its weights have eight bits?"""
    method = config.get("quantization_config")
    return isinstance(method, dict) and method.get("quant_method") == "fp8"


def directories_of(root: Path, files: Iterable[str]) -> list[Path]:
    """A directory and those below it in which files stand."""
    below = {root / Path(name).parent for name in files}
    return [root, *sorted(below - {root})]
