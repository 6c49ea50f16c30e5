"""Small GGUF files for tests, written by our own layout and random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import KeyValue, boolean, f32, lay_out, string, u16, u32

#: Rows of 32 weights: short, and still whole blocks for the simple quantized types.
COLUMNS = 32

Tensors = Mapping[str, tuple[int, ...]]
TENSORS: Tensors = {
    "token_embd.weight": (32, COLUMNS),
    "output_norm.weight": (COLUMNS,),
    "blk.0.attn_q.weight": (32, COLUMNS),
    "blk.0.attn_norm.weight": (COLUMNS,),
}


def llama_keys(arch: str = "llama", file_type: int | None = 1, **texts: str) -> list[KeyValue]:
    """The metadata of a small llama model; texts are string keys with `__` for each dot."""
    keys = [
        string("general.architecture", arch),
        u32(f"{arch}.block_count", 1),
        u32(f"{arch}.context_length", 128),
        u32(f"{arch}.embedding_length", COLUMNS),
        u32(f"{arch}.feed_forward_length", COLUMNS),
        u32(f"{arch}.attention.head_count", 4),
        f32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5),
    ]
    if file_type is not None:
        keys.append(u32("general.file_type", file_type))
    return keys + [string(key.replace("__", "."), text) for key, text in texts.items()]


def write_gguf(
    keys: Sequence[KeyValue] | None = None, tensors: Tensors = TENSORS, *, seed: int = 0, type_: GgmlType = GgmlType.F16
) -> bytes:
    """A whole file: matrices of a float type, vectors in F32; shapes with the row length last."""
    rng = np.random.default_rng(seed)
    infos, data = [], []
    for name, shape in tensors.items():
        kind = type_ if len(shape) > 1 else GgmlType.F32
        values = rng.standard_normal(shape).astype(np.float32)
        infos.append((name, tuple(reversed(shape)), kind))
        data.append(values.astype(np.float16 if kind is GgmlType.F16 else np.float32).tobytes())
    layout = lay_out(llama_keys() if keys is None else keys, infos)
    body = bytearray(layout.file_size)
    body[: len(layout.header)] = layout.header
    for slot, part in zip(layout.slots, data, strict=True):
        start = layout.data_offset + slot.offset
        body[start : start + len(part)] = part
    return bytes(body)


def write_shards(count: int = 2, tensors: Tensors = TENSORS, **options: int) -> list[bytes]:
    """One model cut into shards, as llama-gguf-split cuts it: the metadata are in the first."""
    names = list(tensors)
    cuts = [names[len(names) * i // count : len(names) * (i + 1) // count] for i in range(count)]
    shards = []
    for index, part in enumerate(cuts):
        split = [u16("split.no", index), u16("split.count", count), u32("split.tensors.count", len(tensors))]
        keys = [*llama_keys(), *split] if index == 0 else split
        shards.append(write_gguf(keys, {name: tensors[name] for name in part}, seed=options.get("seed", 0) + index))
    return shards


def projector_keys(*, typed: bool) -> list[KeyValue]:
    """The metadata of a vision projector, with or without its type."""
    keys = [string("general.architecture", "clip"), boolean("clip.has_vision_encoder", True)]
    keys.append(u32("clip.vision.block_count", 1))
    return [*keys, string("clip.projector_type", "mlp")] if typed else keys
