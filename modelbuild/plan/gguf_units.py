"""GGUF files as Ollama takes them: sorted, shards gathered into groups, each group or file one layer to be.

Source: Ollama's create behaviour, August 2026 (classification, order, shard rules and the wording of their faults).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from posixpath import basename

from modelbuild.errors import InputError
from modelbuild.formats.gguf.reader import GgufHeader
from modelbuild.late_pattern import late_pattern
from modelbuild.plan.layer_kind import count_shards
from modelbuild.recipe.resolved import FileEntry
from modelbuild.records import record

#: Tensors of a vision or audio tower, or of a draft head, that stand in a model's own file. Ollama copies such files
#: as they are, because llama.cpp's quantizer would drop these tensors.
EMBEDDED_PREFIXES = ("a.", "mm.", "mtp.", "s.", "v.")
_SHARD_NAME = late_pattern(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.ASCII)
#: Numbers of shards have 16 bits.
_MOST_SHARDS = 0xFFFF


@record
class GgufFile:
    """One file with its header; kind is the layer it becomes."""

    entry: FileEntry
    header: GgufHeader
    kind: str


@record
class GgufUnit:
    """What becomes one layer: a file, or all shards of one model in order."""

    files: tuple[GgufFile, ...]

    @property
    def kind(self) -> str:
        """The layer it becomes."""
        return self.files[0].kind

    @property
    def header(self) -> GgufHeader:
        """The header with the model's metadata; of shards, the first one's."""
        return self.files[0].header

    @property
    def is_sharded(self) -> bool:
        """Are there parts to merge?"""
        return len(self.files) > 1

    @property
    def is_embedding(self) -> bool:
        """Does it hold tensors that llama.cpp's quantizer does not know?"""
        return any(has_embedded_tensors(file.header) for file in self.files)

    @property
    def name(self) -> str:
        """The name of its first file."""
        return self.files[0].entry.name


def has_embedded_tensors(header: GgufHeader) -> bool:
    """Does the file hold tensors of a vision or audio tower or of a draft head beside those of a text model?"""
    return any(tensor.name.startswith(EMBEDDED_PREFIXES) for tensor in header.tensors)


def group_files(files: Sequence[GgufFile]) -> list[GgufUnit]:
    """The layers to be: whole files in order, then groups of shards in the order of their first shard.

    Shards belong together by the last part of their names, whatever directories these have.
    Raises InputError SHARDS when a shard is misnamed, missing or there twice.
    """
    whole = [GgufUnit((file,)) for file in files if count_shards(file.header) == 1]
    groups: dict[tuple[str, str, int], list[tuple[int, GgufFile]]] = {}
    for file in files:
        if count_shards(file.header) > 1:
            prefix, index, count = shard_of(file.entry.name, file.header)
            groups.setdefault((file.kind, prefix, count), []).append((index, file))
    return [*whole, *(_merged(shards, key[2]) for key, shards in groups.items())]


def sibling_names(name: str) -> list[str]:
    """The names of all shards, in order, that a shard's own name implies; just the name for any other file."""
    match = _SHARD_NAME.fullmatch(name)
    if match is None:
        return [name]
    count = int(match[3])
    return (
        [f"{match[1]}-{index:05}-of-{match[3]}.gguf" for index in range(1, count + 1)] if count <= 1 << 16 else [name]
    )


def shard_of(name: str, header: GgufHeader) -> tuple[str, int, int]:
    """Prefix, index from 0, and count of a shard; its name and its metadata must agree, else InputError SHARDS."""
    match, shown = _SHARD_NAME.fullmatch(basename(name)), _quoted(name)
    if match is None or not (0 < int(match[2]) <= _MOST_SHARDS and 0 < int(match[3]) <= _MOST_SHARDS):
        raise _fault(header, f"split GGUF {shown} must use llama.cpp split filename pattern")
    index, count = int(match[2]) - 1, count_shards(header)
    if int(match[3]) != count:
        message = f"split GGUF {shown} filename count {int(match[3])} does not match metadata count {count}"
        raise _fault(header, message)
    recorded = shard_index(header)
    if recorded is None:
        raise _fault(header, f"split GGUF {shown} is missing split.no metadata")
    if recorded != index:
        message = f"split GGUF {shown} filename index {index} does not match metadata index {recorded}"
        raise _fault(header, message)
    return match[1], index, count


def shard_index(header: GgufHeader) -> int | None:
    """The number of a shard, from 0; None when the file does not say."""
    arch = header.kv.get_string("general.architecture") or ""
    for key in ("split.no", f"{arch}.split.no"):
        number = header.kv.get_integer(key)
        if number is not None and 0 <= number <= 0xFFFF:
            return number
    return None


def _merged(shards: Sequence[tuple[int, GgufFile]], count: int) -> GgufUnit:
    first = shards[0][1]
    if len(shards) != count:
        message = f"split GGUF {_quoted(first.entry.name)} has {len(shards)} shards, expected {count}"
        raise _fault(first.header, message)
    ordered: dict[int, GgufFile] = {}
    for index, file in shards:
        if index >= count:
            raise _fault(file.header, f"split GGUF {_quoted(file.entry.name)} has invalid shard index {index}")
        if index in ordered:
            raise _fault(file.header, f"split GGUF has duplicate shard index {index}")
        ordered[index] = file
    return GgufUnit(tuple(ordered[index] for index in sorted(ordered)))


def _quoted(name: str) -> str:
    """A name as Go prints it."""
    from modelbuild.template.quoting import quote  # builds of sound files load nothing that reads templates

    return quote(name)


def _fault(header: GgufHeader, message: str) -> InputError:
    hint = "all shards of a model stand together under the names llama-gguf-split gave them"
    return InputError("SHARDS", message, path=header.path, hint=hint)
