"""Checkpoints whose weights are quantized already: what can be read, and how each weight becomes numbers again.

Source of layouts and formulas: conversion/base.py of llama.cpp (dequant_model), October 2026.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelbuild.convert.checkpoint import CONFIG, Checkpoint
from modelbuild.convert.config import Config
from modelbuild.convert.hub_config import HubConfig
from modelbuild.convert.mxfp4 import MXFP4_NIBBLE_BYTES, Mxfp4Repacked
from modelbuild.convert.packed_integers import UnpackedIntegers
from modelbuild.convert.planned import Source, Stored
from modelbuild.convert.transforms import Reshaped
from modelbuild.convert.value_transforms import ScaledByBlock
from modelbuild.errors import InputError, UnsupportedError, printable
from modelbuild.formats.safetensors import StoredTensor
from modelbuild.records import record

_MXFP4_FILE_TYPE = 38
_SCALED = ("F8_E4M3", "F8_E5M2", "I8")
_DROPPED_END = (
    ".activation_scale", "_activation_scale", ".qscale_act", ".input_scale", ".output_scale", ".k_scale", ".v_scale",
)  # fmt: skip
_COMPRESSED_FORMATS = ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized")
_PACKED_BITS = (2, 4, 8)


@record
class Packing:
    """Integers in 32-bit words: bits of each, and how many columns share a scale (0: all of a row)."""

    bits: int
    group: int


@record
class SourceQuantization:
    """method: of the checkpoint, empty for none. block: rows and columns that share a scale, where the file says so.

    file_type: `general.file_type` that replaces the one of the floats, or None. packing: of integers in words, or None.
    """

    method: str = ""
    block: tuple[int, int] | None = None
    file_type: int | None = None
    packing: Packing | None = None


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
        return SourceQuantization(method, _block(settings, "weight_block_size"))
    if method == "compressed-tensors":
        return _compressed(settings)
    if method == "modelopt" and settings.text("quant_algo").upper() == "FP8":
        return SourceQuantization(method)
    raise _unreadable(settings, method or "an unnamed method")


def _compressed(settings: Config) -> SourceQuantization:
    """One group of settings for all weights: floats or integers with scales, or integers packed in words."""
    layout = settings.text("format")
    if layout not in _COMPRESSED_FORMATS:
        raise _unreadable(settings, f"compressed-tensors {layout}".rstrip())
    groups = settings.section("config_groups")
    names = list(groups.values) if groups else []
    if groups is None or len(names) != 1:
        raise _unreadable(settings, f"compressed-tensors with {len(names)} groups of settings")
    group = groups.section(names[0])
    weights = group.section("weights") if group else None
    if weights is None:
        raise settings.error("config_groups", "settings for weights are missing")
    if layout != "pack-quantized":
        return SourceQuantization("compressed-tensors", _block(weights, "block_structure"))
    bits = weights.integer("num_bits")
    if bits not in _PACKED_BITS:
        raise _unreadable(settings, f"compressed-tensors with {bits} bits")
    size = weights.optional_integer("group_size", "embedding_length")
    return SourceQuantization("compressed-tensors", packing=Packing(bits, size or 0))


def _unreadable(settings: Config, what: str) -> UnsupportedError:
    return UnsupportedError(
        "QUANTIZED",
        f"the weights are quantized by {printable(what)!r}, which cannot be read",
        path=settings.path,
        key="quantization_config.quant_method",
        hint="start from the original checkpoint with F32, F16 or BF16 weights",
    )


def _block(settings: Config, key: str) -> tuple[int, int] | None:
    sizes = settings.integers(key, "embedding_length")
    if sizes is None:
        return None
    if len(sizes) != 2:
        raise settings.error(key, f"two numbers expected, found {len(sizes)}")
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
    if not quantization.method:
        return sources
    if quantization.packing is not None:
        return _unpacked(sources, quantization.packing)
    taken: set[str] = set()
    for name, tensor in stored.items():
        if tensor.dtype in _SCALED:
            scale_name = _scale_name(name, stored)
            taken.add(scale_name)
            sources[name] = _scaled(tensor, stored[scale_name], quantization, config)
    return {name: source for name, source in sources.items() if name not in taken and not name.endswith(_DROPPED_END)}


def _unpacked(sources: dict[str, Source], packing: Packing) -> dict[str, Source]:
    """`X_packed` with its scales (and zeros) becomes X, after all others; what only describes it is left out."""
    plain: dict[str, Source] = {}
    unpacked: dict[str, Source] = {}
    parts = ("_packed", "_scale", "_shape", "_zero_point", "_g_idx")
    bases = {name.removesuffix("_packed") for name in sources if name.endswith("_packed")}
    for name, source in sources.items():
        base = next((name.removesuffix(part) for part in parts if name.endswith(part)), name)
        if base not in bases:
            plain[name] = source
        elif name == f"{base}_packed":
            unpacked[base] = _unpack(sources, base, packing)
    return {name: source for name, source in (plain | unpacked).items() if not name.endswith(_DROPPED_END)}


def _unpack(sources: Mapping[str, Source], base: str, packing: Packing) -> Source:
    packed, scale = sources[f"{base}_packed"], sources.get(f"{base}_scale")
    if scale is None or len(packed.shape) != 2 or packed.dtype != "I32":
        raise InputError("ENTRY", f'missing scales or unfit words for tensor "{printable(base)}"', key=base)
    if f"{base}_g_idx" in sources:
        raise UnsupportedError("QUANTIZED", "groups of reordered columns cannot be read", key=base)
    columns = packed.shape[1] * 32 // packing.bits
    groups = scale.shape[-1] if len(scale.shape) == 2 else 1
    group = packing.group or columns
    if scale.shape[0] != packed.shape[0] or groups != -(-columns // group):
        wanted = [packed.shape[0], -(-columns // group)]
        raise InputError("SHAPE", f"scales of shape {list(scale.shape)}, expected {wanted}", key=base)
    scale = Reshaped(scale, (packed.shape[0], groups))
    return UnpackedIntegers(packed, scale, sources.get(f"{base}_zero_point"), packing.bits, group, columns)


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
