"""Adapters: which files in safetensors form make one, which model they belong to, whether one in GGUF fits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.errors import InputError, printable
from modelbuild.formats.files import is_directory, list_directory
from modelbuild.formats.gguf.reader import GgufHeader, open_gguf
from modelbuild.plan.action import ActionInput, DigestInput, FileInput, Input
from modelbuild.plan.graph import Action, AdapterBaseFiles, AssembleWork, ImportWork
from modelbuild.recipe.resolved import FileEntry
from modelbuild.records import record

#: Role of the input that stands for the base model of an adapter.
BASE_ROLE = "base"
_WEIGHTS_SUFFIX = ".safetensors"


@record
class AdapterFiles:
    """files: by the names that an adapter's own directory has. origin: that directory, or a text for messages.

    inputs: the same files as inputs of an action. directory: the one whose listing decided which files there are.
    """

    files: Mapping[str, Path]
    origin: str
    inputs: tuple[Input, ...]
    directory: Path | None = None


def find_adapter(entries: Sequence[FileEntry], path_of: Callable[[FileEntry], Path]) -> AdapterFiles | None:
    """The files of an adapter in safetensors form, given as its directory or file by file; None for other forms.

    Raises InputError for a directory that is no adapter's, ADAPTER for several of them.
    """
    paths = {entry.name: path_of(entry) for entry in entries}
    if any(is_directory(path) for path in paths.values()):
        if len(entries) > 1:
            hint = "merge the adapters into one, or build a model on a model"
            raise InputError("ADAPTER", "only one adapter is currently supported", hint=hint)
        return _of_directory(path_of(entries[0]))
    if not any(name.endswith(_WEIGHTS_SUFFIX) for name in paths):
        return None
    inputs = tuple(_input(entry.name, entry.content) for entry in entries)
    name = next(name for name in paths if name.endswith(_WEIGHTS_SUFFIX))
    return AdapterFiles(paths, name, inputs)


def _of_directory(directory: Path) -> AdapterFiles | None:
    from modelbuild.convert.lora_names import adapter_files

    suffixes = {path.suffix for path in list_directory(directory)}
    if ".gguf" in suffixes and _WEIGHTS_SUFFIX not in suffixes:
        message = "a directory of GGUF files; name the adapter in it"
        raise InputError("ADAPTER", message, path=directory)
    found = adapter_files(directory)
    inputs = tuple(_input(name, path) for name, path in found.files.items())
    return AdapterFiles(dict(found.files), found.origin, inputs, directory)


def _input(name: str, content: Path | Digest) -> FileInput | DigestInput:
    if isinstance(content, Path):
        return FileInput(name, content, by_tensor=content.suffix == _WEIGHTS_SUFFIX)
    return DigestInput(name, content)


def base_files(base: Input, action_of: Callable[[str], Action], blob_of: Callable[[Digest], Path]) -> AdapterBaseFiles:
    """Where the base model of an adapter can be read about, although its own file may be yet to be made."""
    if isinstance(base, DigestInput):
        return AdapterBaseFiles(gguf=blob_of(base.digest))
    if isinstance(base, FileInput):
        return AdapterBaseFiles(gguf=base.path)
    work = action_of(base.action).work
    if isinstance(work, ImportWork):
        return AdapterBaseFiles(gguf=work.path)
    if not isinstance(work, AssembleWork):
        raise AssertionError(f"{base.action} makes no weights")
    if work.checkpoint is not None:
        return AdapterBaseFiles(checkpoint=work.checkpoint, origin=work.origin)
    return base_files(action_of(base.action).inputs[0], action_of, blob_of)


def check_gguf_adapter(header: GgufHeader, base: AdapterBaseFiles) -> None:
    """InputError ADAPTER for an adapter of another architecture than its base, which no runtime loads.

    Its tensors are not compared: Ollama passes GGUF adapters through, and says so itself when it loads them.
    """
    found, wanted = header.kv.get_string("general.architecture") or "", _architecture_of(base)
    if found != wanted:
        message = f"the adapter is for {printable(found)!r}, the base model is {printable(wanted)!r}"
        hint = "was the adapter trained on this model?"
        raise InputError("ADAPTER", message, path=header.path, key="general.architecture", hint=hint)


def _architecture_of(base: AdapterBaseFiles) -> str:
    if base.gguf is not None:
        return open_gguf(base.gguf).kv.get_string("general.architecture") or ""
    from modelbuild.convert.checkpoint import Checkpoint
    from modelbuild.convert.lora_base import base_of_checkpoint

    return base_of_checkpoint(Checkpoint(base.checkpoint or {}, base.origin)).architecture


def base_input(layers: Sequence[ActionInput | DigestInput]) -> ActionInput | DigestInput:
    """The first of a model's weights, as an input of its adapter; InputError ADAPTER when there are none."""
    if not layers:
        raise InputError("ADAPTER", "no base model was found", hint="name the model it was trained on as 'from'")
    first = layers[0]
    if isinstance(first, ActionInput):
        return ActionInput(BASE_ROLE, first.action)
    return DigestInput(BASE_ROLE, first.digest)
