"""Small LoRA adapters made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from modelbuild.convert import Checkpoint, Conversion
from modelbuild.convert.lora_names import adapter_files
from modelbuild.convert.planned import read_floats, row_count
from tests.reference import read_span

RANK, ALPHA = 3, 7.5
#: A and B of each module.
Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]


def write_adapter(directory: Path, pairs: Pairs, **config: object) -> Checkpoint:
    """An adapter as PEFT saves it; `config` changes its configuration, None leaves a key out."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, **config}
    (directory / "adapter_config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    tensors = {}
    for module, (a, b) in pairs.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    save_file(tensors, directory / "adapter_model.safetensors")
    return adapter_files(directory)


def random_pair(rows: int, columns: int, rank: int = RANK, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A and B for a matrix of that shape."""
    random = np.random.default_rng(seed)
    a, b = random.standard_normal((rank, columns)), random.standard_normal((rows, rank))
    return a.astype(np.float32) / 8, b.astype(np.float32) / 8


def values_of(conversion: Conversion) -> dict[str, np.ndarray]:
    """All tensors of a plan as numbers."""
    return {
        tensor.name: read_floats(tensor.source, read_span, 0, row_count(tensor.source)).reshape(tensor.source.shape)
        for tensor in conversion.tensors
    }


def changes_of(adapter: Conversion) -> dict[str, np.ndarray]:
    """B A for each changed tensor, scaled as the runtime does."""
    values = values_of(adapter)
    alpha = next(item.value.decode() for item in adapter.kv if item.key == "adapter.lora.alpha")
    changes = {}
    for name, a in values.items():
        if name.endswith(".lora_a"):
            b = values[f"{name.removesuffix('a')}b"]
            changes[name.removesuffix(".lora_a")] = (b @ a) * (alpha / b.shape[-1])
    return changes
