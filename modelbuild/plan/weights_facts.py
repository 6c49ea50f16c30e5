"""What decides how weights are treated: their type, whether they are quantized, what else stands in their file."""

from __future__ import annotations

from modelbuild.formats.gguf.reader import GgufHeader
from modelbuild.formats.gguf.types import is_quantized
from modelbuild.plan.gguf_units import has_embedded_tensors
from modelbuild.plan.graph import COPY_PRESET
from modelbuild.plan.layer_kind import describe_file_type
from modelbuild.records import record

#: Mark of Ollama's converter in models that were FP8; they are stored in 16 bits and want to be Q8_0.
_FP8_SOURCE = "hf_fp8"


@record
class WeightsFacts:
    """About one GGUF that exists or will be made; file_type None means that it is not known or not said.

    described: the type in words, for messages.
    """

    file_type: int | None
    is_quantized: bool
    is_fp8: bool
    is_embedding: bool
    described: str

    def is_of_type(self, preset: str) -> bool:
        """Is nothing left to do for this preset?"""
        from modelbuild.quantize.presets import find_preset

        wanted = find_preset(preset)
        return wanted is not None and self.file_type == wanted.file_type


def facts_of_header(header: GgufHeader, *, embedding: bool | None = None) -> WeightsFacts:
    """The facts of a file; `embedding` is given when other shards count as well."""
    arch = header.kv.get_string("general.architecture") or ""
    return WeightsFacts(
        header.kv.get_u32("general.file_type"),
        any(is_quantized(tensor.type) for tensor in header.tensors),
        header.kv.get_string(f"{arch}.source_quantization") == _FP8_SOURCE,
        has_embedded_tensors(header) if embedding is None else embedding,
        describe_file_type(header),
    )


def facts_of_preset(preset: str, *, is_embedding: bool) -> WeightsFacts:
    """The facts of a file that an action of the same plan will make; what depends on its source stays unknown."""
    from modelbuild.quantize.presets import find_preset

    known = None if preset in ("", COPY_PRESET) else find_preset(preset)
    if known is None:
        return WeightsFacts(None, False, False, is_embedding, "")
    floats = ("F32", "F16", "BF16")
    return WeightsFacts(known.file_type, known.name not in floats, False, is_embedding, known.name)
