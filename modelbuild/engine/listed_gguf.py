"""What the list of models tells of a GGUF: read as Ollama does it, key by key up to the tokenizer.

Source: Ollama's list of models, August 2026.
"""

from __future__ import annotations

from modelbuild.formats.gguf.reader import GgufHeader
from modelbuild.formats.gguf.types import FILE_TYPE_NAMES, ValueType
from modelbuild.formats.gguf.values import RawValue
from modelbuild.records import record
from modelbuild.template.capabilities import AUDIO, COMPLETION, EMBEDDING, VISION

_TOKENIZER_PREFIX = "tokenizer."


@record
class ListedGguf:
    """Lengths are 0 and the type empty where they are not known; then there may be no capability either."""

    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    file_type: str = ""


def read_listed(header: GgufHeader) -> ListedGguf:
    """The listed facts of a header. Keys of the architecture count only behind the one that names it.

    A value of a wrong type ends the reading, and then nothing of the file counts.
    """
    architecture = ""
    lengths = {"context_length": 0, "embedding_length": 0}
    modalities: list[str] = []
    kind, file_type = COMPLETION, ""
    for key in header.kv:
        value = header.kv[key]
        if key == "general.architecture":
            if value.type is not ValueType.STRING:
                return ListedGguf()
            architecture = str(value.decode())
        elif key == "general.file_type":
            if (number := _whole(value)) is None:
                return ListedGguf()
            file_type = FILE_TYPE_NAMES.get(number, "")
        elif architecture and key.startswith(_TOKENIZER_PREFIX):
            break
        elif architecture and key.startswith(f"{architecture}."):
            name = key[len(architecture) + 1 :]
            if name in lengths:
                if (number := _whole(value)) is None:
                    return ListedGguf()
                lengths[name] = number
            kind = EMBEDDING if name == "pooling_type" else kind
            modalities += [VISION] if name == "vision.block_count" else []
            modalities += [AUDIO] if name == "audio.block_count" else []
    return ListedGguf((*modalities, kind), lengths["context_length"], lengths["embedding_length"], file_type)


def _whole(value: RawValue) -> int | None:
    """A whole number, as a signed one of 64 bits; None for everything else."""
    number = None if value.type in (ValueType.STRING, ValueType.ARRAY) else value.decode()
    if type(number) is not int:
        return None
    return number - (1 << 64) if number >= 1 << 63 else number
