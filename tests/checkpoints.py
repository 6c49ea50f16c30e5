"""Small checkpoints made on the spot: configuration, tokenizer and random weights with the names of real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from modelbuild.convert import Checkpoint, Conversion, ConversionOptions, plan_conversion

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1, "I32": 4}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def write_safetensors(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], seed: int = 1) -> None:
    """Random weights: name to dtype and shape."""
    random = np.random.default_rng(seed)
    entries: dict[str, object] = {}
    data = bytearray()
    for name, (dtype, shape) in tensors.items():
        count = prod(shape)
        values = random.standard_normal(count).astype(np.float32)
        raw = {
            "F32": values.tobytes(),
            "F16": values.astype(np.float16).tobytes(),
            "BF16": (values.view(np.uint32) >> 16).astype(np.uint16).tobytes(),
            "F8_E4M3": random.integers(0, 0x7F, count, dtype=np.uint8).tobytes(),
            "U8": random.integers(0, 256, count, dtype=np.uint8).tobytes(),
            "I32": random.integers(0, 1 << 31, count, dtype=np.int32).tobytes(),
        }[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(data))


def write_sparse(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """The same without data: a file with a hole of any size. Returns the size of the weights in bytes."""
    entries: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + prod(shape) * ITEM_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return end


def llama_config(**changes: object) -> dict[str, object]:
    """Two blocks of width 32."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 128,
        "vocab_size": 12,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 10,
        "eos_token_id": 11,
        **changes,
    }


def llama_tensors(dtype: str = "BF16", *, blocks: int = 2, rows: int = 12) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors that `llama_config` asks for."""
    tensors = {"model.embed_tokens.weight": (dtype, (rows, 32)), "model.norm.weight": (dtype, (32,))}
    for block in range(blocks):
        layer = f"model.layers.{block}."
        tensors |= {
            f"{layer}input_layernorm.weight": (dtype, (32,)),
            f"{layer}post_attention_layernorm.weight": (dtype, (32,)),
            f"{layer}self_attn.q_proj.weight": (dtype, (32, 32)),
            f"{layer}self_attn.k_proj.weight": (dtype, (16, 32)),
            f"{layer}self_attn.v_proj.weight": (dtype, (16, 32)),
            f"{layer}self_attn.o_proj.weight": (dtype, (32, 32)),
            f"{layer}mlp.gate_proj.weight": (dtype, (48, 32)),
            f"{layer}mlp.up_proj.weight": (dtype, (48, 32)),
            f"{layer}mlp.down_proj.weight": (dtype, (32, 48)),
        }
    return tensors


def bpe_tokenizer(**changes: object) -> dict[str, object]:
    """Ten byte-level tokens with two merges, and two special tokens."""
    vocabulary = {text: number for number, text in enumerate(["a", "b", "c", "d", "e", "f", "g", "Ġ", "ab", "abc"])}
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "ignore_merges": True, "vocab": vocabulary, "merges": ["a b", "ab c"]}
    return {
        "added_tokens": [
            {"id": 10, "content": "<|begin|>", "special": True, "normalized": False},
            {"id": 11, "content": "<|end|>", "special": True, "normalized": False},
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel"},
        "model": model,
        **changes,
    }


def write_checkpoint(
    directory: Path,
    config: Mapping[str, object] | None = None,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    **files: object,
) -> Path:
    """A checkpoint directory; `files` maps names with `__` for `.` to JSON, text or bytes, None to leave out."""
    directory.mkdir(parents=True, exist_ok=True)
    contents: dict[str, object] = {
        "config.json": llama_config() if config is None else config,
        "tokenizer.json": bpe_tokenizer(),
        "tokenizer_config.json": {"bos_token": "<|begin|>", "eos_token": "<|end|>"},
        **{name.replace("__", "."): value for name, value in files.items()},
    }
    for name, value in contents.items():
        if value is not None:
            data = (
                value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
            )
            (directory / name).write_bytes(data)
    write_safetensors(directory / "model.safetensors", llama_tensors() if tensors is None else tensors)
    return directory


def convert(directory: Path, **options: str) -> Conversion:
    """The conversion of a directory."""
    return plan_conversion(Checkpoint.of_directory(directory), ConversionOptions(**options))


def keys_of(conversion: Conversion) -> dict[str, object]:
    """Decoded values by key."""
    return {item.key: item.value.decode() for item in conversion.kv}
