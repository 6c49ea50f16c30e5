"""Checkpoints whose weights are quantized already: what can be read, and how each weight becomes numbers again.

Source of layouts and formulas: conversion/base.py of llama.cpp (dequant_model), October 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelbuild.convert.checkpoint import CONFIG, Checkpoint
from modelbuild.convert.config import Config
from modelbuild.convert.hub_config import HubConfig
from modelbuild.convert.mxfp4 import MXFP4_NIBBLE_BYTES, Mxfp4Repacked
from modelbuild.convert.planned import Source, Stored
from modelbuild.convert.transforms import Reshaped, ScaledByBlock
from modelbuild.errors import InputError, UnsupportedError, printable
from modelbuild.formats.safetensors import StoredTensor

_MXFP4_FILE_TYPE = 38
_FLOAT8 = ("F8_E4M3", "F8_E5M2")
_DROPPED_END = (".activation_scale", "_activation_scale", ".qscale_act", ".input_scale", ".k_scale", ".v_scale")


@dataclass(frozen=True, slots=True)
class SourceQuantization:
    """method: of the checkpoint, empty for none. block: rows and columns that share a scale, where the file says so.

    file_type: `general.file_type` that replaces the one of the floats, or None.
    """

    method: str = ""
    block: tuple[int, int] | None = None
    file_type: int | None = None


def read_source_quantization(hub: HubConfig, checkpoint: Checkpoint) -> SourceQuantization:
    """How the checkpoint is quantized; UnsupportedError QUANTIZED, by name, for a method that cannot be read."""
    path = checkpoint.files[CONFIG]
    settings = Config(path, hub.values).section("quantization_config") or Config(path, hub.root).section(
        "quantization_config"
    )
    if settings is None:
        return SourceQuantization()
    method = settings.text("quant_method").lower()
    if method == "mxfp4":
        return SourceQuantization(method, file_type=_MXFP4_FILE_TYPE)
    if method == "fp8":
        return SourceQuantization(method, _block(settings))
    raise UnsupportedError(
        "QUANTIZED",
        f"the weights are quantized by {printable(method or 'an unnamed method')!r}, which cannot be read",
        path=path,
        key="quantization_config.quant_method",
        hint="start from the original checkpoint with F32, F16 or BF16 weights",
    )


def _block(settings: Config) -> tuple[int, int] | None:
    sizes = settings.integers("weight_block_size", "embedding_length")
    if sizes is None:
        return None
    if len(sizes) != 2:
        raise settings.error("weight_block_size", f"two numbers expected, found {len(sizes)}")
    return sizes[0], sizes[1]


def open_sources(
    stored: Mapping[str, StoredTensor], quantization: SourceQuantization, config: Config
) -> dict[str, Source]:
    """Every stored tensor as a source of numbers; scales are joined with their weights and leave the list.

    Raises InputError SHAPE or ENTRY when the scale of an FP8 weight is missing or does not fit.
    """
    sources: dict[str, Source] = {name: Stored(tensor) for name, tensor in stored.items()}
    if quantization.method == "mxfp4":
        return _repacked(sources)
    if quantization.method != "fp8":
        return sources
    taken: set[str] = set()
    for name, tensor in stored.items():
        if tensor.dtype in _FLOAT8:
            scale_name = _scale_name(name, stored)
            taken.add(scale_name)
            sources[name] = _scaled(tensor, stored[scale_name], quantization, config)
    return {name: source for name, source in sources.items() if name not in taken and not name.endswith(_DROPPED_END)}


def _repacked(sources: dict[str, Source]) -> dict[str, Source]:
    """Blocks with their scales become tensors of the packed type; everything else stays."""
    joined: dict[str, Source] = {}
    for name, source in sources.items():
        if name.endswith("_blocks"):
            scales = sources.get(f"{name.removesuffix('blocks')}scales")
            if scales is None or scales.shape != source.shape[:-1] or source.shape[-1:] != (MXFP4_NIBBLE_BYTES,):
                raise InputError("ENTRY", f'missing or unfit scales for tensor "{printable(name)}"', key=name)
            joined[name] = Mxfp4Repacked(source, scales)
        elif not name.endswith("_scales") or f"{name.removesuffix('scales')}blocks" not in sources:
            joined[name] = source
    return joined


def _scale_name(name: str, stored: Mapping[str, StoredTensor]) -> str:
    candidates = [f"{name}_scale_inv", f"{name}_scale", f"{name}.scale_inv", f"{name}.scale"]
    if name.endswith(".weight"):
        candidates.append(f"{name.removesuffix('weight')}qscale_weight")
    found = [candidate for candidate in candidates if candidate in stored]
    if len(found) != 1:
        problem = "missing fp8 scale companion" if not found else "multiple fp8 scale companions"
        raise InputError("ENTRY", f'{problem} for tensor "{printable(name)}"', path=stored[name].path)
    return found[0]


def _scaled(tensor: StoredTensor, scale: StoredTensor, quantization: SourceQuantization, config: Config) -> Source:
    """A scale per block, per row or for the whole tensor."""
    rows, columns = tensor.shape[-2:] if len(tensor.shape) > 1 else (1, *tensor.shape, 1)[:2]
    outer = tensor.shape[:-2]
    source: Source = Stored(scale)
    if scale.shape in ((), (1,)):
        return ScaledByBlock(Stored(tensor), Reshaped(source, (1, 1)), (max(1, _total_rows(tensor)), columns))
    if scale.shape in ((*outer, rows), (*outer, rows, 1)):
        return ScaledByBlock(Stored(tensor), Reshaped(source, (*outer, rows, 1)), (1, columns))
    block = quantization.block
    if block is None:
        raise config.error(
            "quantization_config", f'missing fp8 block size metadata for tensor "{printable(tensor.name)}"'
        )
    wanted = (*outer, -(-rows // block[0]), -(-columns // block[1]))
    if scale.shape != wanted:
        message = f"unexpected fp8 scale shape {list(scale.shape)}; want {list(wanted)}"
        raise InputError("SHAPE", message, path=scale.path, key=scale.name)
    return ScaledByBlock(Stored(tensor), source, block)


def _total_rows(tensor: StoredTensor) -> int:
    rows = 1
    for size in tensor.shape[:-1]:
        rows *= size
    return rows
