"""TinyDocs-4M packed to each recorded type: real llama.cpp gives the perplexity and the divergence that were recorded.

The text is cut into windows; of each, the second half is predicted. The divergence is that of the packed model's
predictions from those of the unpacked one. What was recorded came from llama-perplexity and the reference's files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.llama_runtime import LlamaRuntime, llama
from tests.space import Space

Float32 = npt.NDArray[np.float32]
TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q4_0", "Q3_K_M", "Q2_K")


def _built(space: Space, name: str) -> Path:
    manifest = next((space.store / "manifests").rglob(f"{name}/latest"))
    layers = json.loads(manifest.read_text())["layers"]
    digest = next(layer["digest"] for layer in layers if layer["mediaType"].endswith(".model"))
    return space.store / "blobs" / str(digest).replace(":", "-")


def _windows(runtime: LlamaRuntime, text: str, size: int) -> list[list[int]]:
    tokens = runtime.tokenize(text, special=True)
    windows = [tokens[start : start + size] for start in range(0, len(tokens) - size + 1, size)]
    return [[tokens[0], *window[1:]] for window in windows]


def _log_probabilities(runtime: LlamaRuntime, window: list[int]) -> Float32:
    """Of every possible next token, for the second half of the window but its last."""
    logits = runtime.all_logits(window)[len(window) // 2 : -1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    found: Float32 = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    return found


def _measure(path: Path, text: str, size: int) -> tuple[float, list[Float32]]:
    """The perplexity, and all predictions."""
    with llama(path) as runtime:
        windows = _windows(runtime, text, size)
        found = [_log_probabilities(runtime, window) for window in windows]
    right = [
        predicted[np.arange(len(predicted)), window[size // 2 + 1 :]]
        for predicted, window in zip(found, windows, strict=True)
    ]
    return float(np.exp(-np.concatenate(right).astype(np.float64).mean())), found


def _divergence(base: list[Float32], other: list[Float32]) -> float:
    each = [(np.exp(one) * (one - two)).sum(axis=1) for one, two in zip(base, other, strict=True)]
    return float(np.concatenate(each).astype(np.float64).mean())


@pytest.mark.llamacpp
def test_perplexity_and_divergence_are_the_recorded_ones(space: Space, shared: Path) -> None:
    """The loss of each type is what packing it costs and nothing else."""
    place = shared / "fixtures" / "tinylm"
    recorded: dict[str, Any] = json.loads((place / "perplexity.json").read_text())
    expected, size = recorded["llama_cpp"], recorded["context"]
    text = (place / "heldout.txt").read_text()
    models = "".join(
        f"  {name.lower()}: {{from: '{place / 'TinyDocs-4M'}', quantize: {name}, intermediate: f16}}\n"
        for name in TYPES
    )
    space.recipe(f"models:\n  f32: {{from: '{place / 'TinyDocs-4M'}', quantize: F32}}\n{models}")
    space.build()

    plain, base = _measure(_built(space, "f32"), text, size)
    found = {name: _measure(_built(space, name.lower()), text, size) for name in TYPES}

    assert len(base) == recorded["windows"]
    assert plain == pytest.approx(expected["f32"]["ppl"], abs=0.002)
    for name, (perplexity, predicted) in found.items():
        assert perplexity == pytest.approx(expected[name]["ppl"], abs=0.002), name
        assert _divergence(base, predicted) == pytest.approx(expected[name]["kld_mean"], rel=0.02), name
        assert _built(space, name.lower()).stat().st_size == expected[name]["bytes"], name
