"""Qwen3-VL and Qwen3.5: learnt positions beside rotated heads, and features from inside the encoder for the text model.

Source: conversion/qwen3vl.py of llama.cpp, October 2026.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from modelbuild.convert.config import Config
from modelbuild.convert.family import Family, exact, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.convert.projectors.qwen2vl import split_time
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
from modelbuild.formats.gguf.writer import KeyValue, bool_array, boolean, u32

_LAYER = "visual.blocks.{b}."
_MERGER, _DEEP = "visual.merger.", "visual.deepstack_merger_list."
#: How pictures are scaled where a checkpoint does not say it.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: What becomes of the n-th merger of that list: it is called after the block whose output it takes.
_DEEP_LAYER = "visual.deepstack.{b}."


def _deep_blocks(model: Model) -> list[int]:
    """Blocks whose output the text model gets as well; InputError CONFIG for one that is not there."""
    blocks = model.config.integers("deepstack_visual_indexes") or []
    unfit = [block for block in blocks if not 0 <= block < model.layers]
    if unfit:
        message = f"the encoder has {model.layers} blocks, found {unfit[0]}"
        raise model.config.error("deepstack_visual_indexes", message)
    return blocks


def _rename(name: str, model: Model) -> str:
    """Names of the vision part; mergers of inner features get the number of their block."""
    name = keep_prefixes("visual.")(name, model)
    number, _, rest = name.removeprefix(_DEEP).partition(".")
    blocks = _deep_blocks(model)
    if not name.startswith(_DEEP) or not (number.isascii() and number.isdecimal() and int(number) < len(blocks)):
        return name
    return f"{_DEEP_LAYER.format(b=blocks[int(number)])}{rest}"


def _is_deep(model: Model, block: int) -> bool:
    return block in _deep_blocks(model)


def _last_keys(model: Model) -> Iterable[KeyValue]:
    yield boolean("clip.use_gelu", True)
    merged = model.config.optional_integer("spatial_merge_size", "head_dimension")
    if merged is not None:
        yield u32("clip.vision.spatial_merge_size", merged)


def _deep_keys(model: Model) -> Iterable[KeyValue]:
    blocks = _deep_blocks(model)
    yield bool_array("clip.vision.is_deepstack_layers", [block in blocks for block in range(model.layers)])


def _text_epsilon(model: Model) -> float:
    """The runtime's norms take the text model's."""
    text = model.root.section("text_config")
    return 1e-6 if text is None else text.number("rms_norm_eps", 1e-6)


def _image_size(config: Config) -> int:
    """The picture for which every learnt position is used once."""
    positions, patch = config.integer("num_position_embeddings", default=2304), config.integer("patch_size", default=16)
    return int(math.sqrt(positions) * patch)


def _merged(model: Model) -> int:
    """Width of the patches that are merged into one token."""
    return model.hidden * model.config.integer("spatial_merge_size", "head_dimension", 2) ** 2


FAMILY = Family(
    classes=(
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
    ),
    architecture="clip",
    defaults={
        "image_size": _image_size,
        "patch_size": 16,
        "num_hidden_layers": lambda config: config.get("depth"),
        "num_position_embeddings": 2304,
        "image_mean": list(_MEAN),
        "image_std": list(_STD),
    },
    keys=(vision_keys, projector_type("qwen3vl_merger"), _last_keys, epsilon(_text_epsilon), _deep_keys),
    tensors=(
        exact(
            "visual.patch_embed.proj.weight",
            ("v.patch_embd.weight", "v.patch_embd.weight.1"),
            "hidden 3 2 patch patch",
            split_time,
        ),
        exact("visual.patch_embed.proj.bias", "v.patch_embd.bias", "hidden"),
        matrix("visual.pos_embed", "v.position_embd", "learnt hidden"),
        norm(f"{_LAYER}norm1", f"{BLOCK}ln1", bias="required"),
        norm(f"{_LAYER}norm2", f"{BLOCK}ln2", bias="required"),
        matrix(f"{_LAYER}attn.qkv", f"{BLOCK}attn_qkv", "3*hidden hidden", bias="required"),
        matrix(f"{_LAYER}attn.proj", f"{BLOCK}attn_out", "hidden hidden", bias="required"),
        matrix(f"{_LAYER}mlp.linear_fc1", f"{BLOCK}ffn_up", "ff hidden", bias="required"),
        matrix(f"{_LAYER}mlp.linear_fc2", f"{BLOCK}ffn_down", "hidden ff", bias="required"),
        norm(f"{_MERGER}norm", "v.post_ln", bias="required"),
        matrix(f"{_MERGER}linear_fc1", "mm.0", "merged merged", bias="required"),
        matrix(f"{_MERGER}linear_fc2", "mm.2", "text merged", bias="required"),
        norm(f"{_DEEP_LAYER}norm", "v.deepstack.{b}.norm", "merged", bias="required", when=_is_deep),
        matrix(f"{_DEEP_LAYER}linear_fc1", "v.deepstack.{b}.fc1", "merged merged", bias="required", when=_is_deep),
        matrix(f"{_DEEP_LAYER}linear_fc2", "v.deepstack.{b}.fc2", "text merged", bias="required", when=_is_deep),
    ),
    rename=_rename,
    sizes={
        **SIZES,
        "merged": _merged,
        "learnt": lambda model: model.config.integer("num_position_embeddings", "count"),
    },
    force_type=patches_type,
    tokenizer=no_tokenizer,
)
