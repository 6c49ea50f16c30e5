"""What the tables of vision parts share: keys of every encoder, rules of the usual blocks, types. No table of its own.

Source: conversion/base.py of llama.cpp (MmprojModel), October 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from modelbuild.convert import config as names
from modelbuild.convert.config import Config
from modelbuild.convert.family import KeyRule, TensorRule, Transform, matrix, norm
from modelbuild.convert.model import Model
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, boolean, f32, f32_array, string, u32

LAYER = "vision_tower.vision_model.encoder.layers.{b}."
BLOCK = "v.blk.{b}."
_PREFIX = "clip.vision."
_F16_FILE_TYPE = 1
#: Numbers of every encoder by key, in the reference's order, and the names under which configurations keep them.
_COUNTS = (
    ("image_size", ("image_size",), "count"),
    ("patch_size", ("patch_size",), "head_dimension"),
    ("embedding_length", ("hidden_size", "width", "vt_hidden_size"), "embedding_length"),
    ("feed_forward_length", ("intermediate_size", "vt_intermediate_size"), "feed_forward_length"),
    ("block_count", names.BLOCK_COUNT, "block_count"),
    ("attention.head_count", ("num_attention_heads", "num_heads", "heads"), "head_count"),
)


def no_tokenizer(_model: Model) -> Iterable[KeyValue]:
    """A projector has none."""
    return ()


def text_width(model: Model) -> int:
    """Width of the text model's residual stream, which pictures become a part of."""
    text = model.root.section("text_config")
    values = {**model.root.values, **(text.values if text else {})}
    found = Config(model.config.path, values).optional_integer(("hidden_size", "n_embd"), "embedding_length")
    if found is not None:
        return found
    last = [tensor for name, tensor in model.stored.items() if name.endswith("linear_2.weight")]
    if last and last[0].shape:
        return last[0].shape[0]
    raise model.root.error("text_config.hidden_size", "the key is missing")


def vision_keys(model: Model) -> Iterable[KeyValue]:
    """Type, sizes, and how the colours of a picture are scaled; InputError CONFIG when a number is missing."""
    yield u32("general.file_type", model.file_type)
    yield boolean("clip.has_vision_encoder", True)
    yield u32(f"{_PREFIX}projection_dim", text_width(model))
    for key, keys, bounds in _COUNTS:
        yield u32(f"{_PREFIX}{key}", model.config.integer(keys, bounds))
    settings = preprocessor(model)
    for key in ("image_mean", "image_std"):
        yield f32_array(f"{_PREFIX}{key}", _colours(settings, key, model.config.numbers(key)))


def preprocessor(model: Model) -> Config:
    """How pictures are prepared: preprocessor_config.json, over it processor_config.json."""
    checkpoint = model.checkpoint
    values: dict[str, object] = {}
    for name, inner in (("preprocessor_config.json", "media_proc_cfg"), ("processor_config.json", "image_processor")):
        document = checkpoint.read_object(name, nonfinite=True)
        lifted = document.get(inner)
        values |= document | (lifted if isinstance(lifted, dict) else {})
    return Config(checkpoint.files.get("preprocessor_config.json", checkpoint.origin), values)


def _colours(settings: Config, key: str, usual: list[float] | None) -> list[float]:
    """usual: what the class has where no file says it."""
    values = settings.numbers(key) or usual
    if values is None or len(values) != 3:
        hint = "is preprocessor_config.json or processor_config.json part of the checkpoint?"
        raise settings.error(key, f"three numbers expected, found {0 if values is None else len(values)}", hint)
    return values


def projector_type(name: str | Callable[[Model], str]) -> KeyRule:
    """How the runtime joins pictures and text."""
    return lambda model: [string("clip.projector_type", name if isinstance(name, str) else name(model))]


def epsilon(value: Callable[[Model], float]) -> KeyRule:
    """Of the encoder's norms."""
    return lambda model: [f32(f"{_PREFIX}attention.layer_norm_epsilon", value(model))]


def spatial_merge(model: Model) -> Iterable[KeyValue]:
    """How many patches by side become one token, where the configuration says so."""
    size = model.root.optional_integer("spatial_merge_size", "head_dimension")
    if size is not None:
        yield u32(f"{_PREFIX}spatial_merge_size", size)


def activation(model: Model) -> Iterable[KeyValue]:
    """SiLU or GELU; InputError CONFIG for another one."""
    chosen = model.config.text("hidden_act")
    if chosen not in ("silu", "gelu"):
        raise model.config.error("hidden_act", f"silu or gelu expected, found {chosen!r}")
    yield boolean(f"clip.use_{chosen}", True)


def patches_type(name: str, model: Model) -> GgmlType | None:
    """Kernels of convolutions are F32, unless everything is F16."""
    if ".patch_embd.weight" in name or ".patch_merger.weight" in name:
        return GgmlType.F16 if model.file_type == _F16_FILE_TYPE else GgmlType.F32
    return None


def standard_blocks(layer: str = LAYER) -> tuple[TensorRule, ...]:
    """Blocks of CLIP and SigLIP."""
    return (
        norm(f"{layer}layer_norm1", f"{BLOCK}ln1", bias="required"),
        norm(f"{layer}layer_norm2", f"{BLOCK}ln2", bias="required"),
        matrix(f"{layer}self_attn.q_proj", f"{BLOCK}attn_q", "hidden hidden", bias="required"),
        matrix(f"{layer}self_attn.k_proj", f"{BLOCK}attn_k", "hidden hidden", bias="required"),
        matrix(f"{layer}self_attn.v_proj", f"{BLOCK}attn_v", "hidden hidden", bias="required"),
        matrix(f"{layer}self_attn.out_proj", f"{BLOCK}attn_out", "hidden hidden", bias="required"),
        matrix(f"{layer}mlp.fc1", f"{BLOCK}ffn_up", "ff hidden", bias="required"),
        matrix(f"{layer}mlp.fc2", f"{BLOCK}ffn_down", "hidden ff", bias="required"),
    )


def keep_prefixes(*prefixes: str) -> Callable[[str, Model], str]:
    """Names of the vision part, without the prefix that newer releases put before them; nothing of the text model."""

    def rename(name: str, _model: Model) -> str:
        name = name.removeprefix("model.")
        return name if name.startswith(prefixes) else ""

    return rename


def kernel(source: str, *, bias: bool = False, transform: Transform | None = None) -> TensorRule:
    """The convolution that makes patches of a picture."""
    return matrix(
        source,
        "v.patch_embd",
        "hidden 3 patch patch",
        transform,
        bias="required" if bias else "absent",
        bias_shape="hidden" if bias else "",
    )


SIZES: dict[str, Callable[[Model], int | None]] = {
    "patch": lambda model: model.config.integer("patch_size", "head_dimension"),
    "text": text_width,
    "positions": lambda model: (
        (model.config.integer("image_size") // model.config.integer("patch_size", "head_dimension")) ** 2
    ),
}
