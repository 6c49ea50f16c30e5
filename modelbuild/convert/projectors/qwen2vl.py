"""Qwen2-VL and Qwen2.5-VL: patches of two pictures in time, rotated heads, four patches merged into one token."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import prod

from modelbuild.convert.family import Family, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.planned import Source
from modelbuild.convert.projectors.vision import (
    BLOCK,
    SIZES,
    epsilon,
    keep_prefixes,
    no_tokenizer,
    patches_type,
    projector_type,
    vision_keys,
)
from modelbuild.convert.transforms import RowMap, take_rows
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, boolean, u32

_LAYER = "visual.blocks.{b}."
_IMAGE_SIZE = 560


def is_second_version(model: Model) -> bool:
    """Is it Qwen2.5-VL?"""
    return model.hf_class == "Qwen2_5_VLForConditionalGeneration"


def _plain(model: Model, _block: int) -> bool:
    return not is_second_version(model)


def _gated(model: Model, _block: int) -> bool:
    return is_second_version(model)


def split_time(source: Source, _model: Model, _block: int) -> tuple[Source, Source]:
    """The kernel of the first picture and that of the second: (width, 3, 2, patch, patch) without its third axis."""
    outer, times, rows = prod(source.shape[:2]), source.shape[2], source.shape[3]
    shape = (*source.shape[:2], *source.shape[3:])
    first, second = (RowMap(source, shape, (outer, rows), (times * rows, 1), time * rows) for time in range(2))
    return first, second


def _thirds(source: Source, _model: Model, _block: int) -> tuple[Source, ...]:
    """Queries, keys, values."""
    size = source.shape[0] // 3
    return tuple(take_rows(source, part * size, (part + 1) * size) for part in range(3))


def _window_keys(model: Model) -> Iterable[KeyValue]:
    """Every how many blocks one sees the whole picture; InputError CONFIG when they do not come regularly."""
    if not is_second_version(model):
        return
    yield boolean("clip.use_silu", True)
    indexes = model.config.integers("fullatt_block_indexes")
    if not indexes:
        raise model.config.error("fullatt_block_indexes", "the key is missing")
    period = indexes[0] + 1
    if any(after - before != period for before, after in pairwise(indexes)):
        raise model.config.error("fullatt_block_indexes", f"Invalid fullatt_block_indexes: {indexes}")
    yield u32("clip.vision.n_wa_pattern", period)


def _width(model: Model) -> int:
    """Width of the encoder; in the first version `hidden_size` is that of the text model."""
    return model.config.integer(("embed_dim", "hidden_size"), "embedding_length")


def _sizes(model: Model) -> Iterable[KeyValue]:
    """The reference notes the width of the text model as that of the first version's feed-forward part."""
    for item in vision_keys(model):
        if item.key == "clip.vision.embedding_length":
            yield u32(item.key, _width(model))
        else:
            yield item


def _type(name: str, model: Model) -> GgmlType | None:
    return GgmlType.F32 if ".position_embd." in name else patches_type(name, model)


FAMILY = Family(
    classes=("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"),
    architecture="clip",
    defaults={
        "image_size": _IMAGE_SIZE,
        "patch_size": 14,
        "num_hidden_layers": lambda config: config.get("depth"),
        "intermediate_size": lambda config: config.get("hidden_size") if config.get("embed_dim") else None,
    },
    keys=(
        _sizes,
        projector_type(lambda model: "qwen2.5vl_merger" if is_second_version(model) else "qwen2vl_merger"),
        _window_keys,
        epsilon(lambda model: model.root.number("rms_norm_eps", 1e-6)),
    ),
    tensors=(
        exact(
            "visual.patch_embed.proj.weight",
            ("v.patch_embd.weight", "v.patch_embd.weight.1"),
            "width 3 2 patch patch",
            split_time,
        ),
        norm(f"{_LAYER}norm1", f"{BLOCK}ln1", "width", bias="optional"),
        norm(f"{_LAYER}norm2", f"{BLOCK}ln2", "width", bias="optional"),
        matrix(
            f"{_LAYER}attn.qkv",
            (f"{BLOCK}attn_q", f"{BLOCK}attn_k", f"{BLOCK}attn_v"),
            "3*width width",
            _thirds,
            bias="required",
        ),
        matrix(f"{_LAYER}attn.proj", f"{BLOCK}attn_out", "width width", bias="required"),
        matrix(f"{_LAYER}mlp.fc1", f"{BLOCK}ffn_up", "? width", bias="required", when=_plain),
        matrix(f"{_LAYER}mlp.fc2", f"{BLOCK}ffn_down", "width ?", bias="required", when=_plain),
        matrix(f"{_LAYER}mlp.gate_proj", f"{BLOCK}ffn_gate", "ff width", bias="required", when=_gated),
        matrix(f"{_LAYER}mlp.up_proj", f"{BLOCK}ffn_up", "ff width", bias="required", when=_gated),
        matrix(f"{_LAYER}mlp.down_proj", f"{BLOCK}ffn_down", "width ff", bias="required", when=_gated),
        norm("visual.merger.ln_q", "v.post_ln", "width", bias="optional"),
        matrix("visual.merger.mlp.0", "mm.0", "? ?", bias="required"),
        matrix("visual.merger.mlp.2", "mm.2", "text ?", bias="required"),
    ),
    rename=keep_prefixes("visual."),
    drop=("visual.rotary_pos_emb.inv_freq",),
    sizes={**SIZES, "width": _width},
    force_type=_type,
    tokenizer=no_tokenizer,
)
