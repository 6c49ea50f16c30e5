"""Kinds of weights that take kernels to their corners; small, and never a whole number of lane groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
#: 15 super-blocks: batches of four, lane groups of 8, 16 and 32 sub-blocks all end in the middle.
SHAPE = (5, 768)


def weight_kinds() -> Iterator[tuple[str, Float32]]:
    """(name, float32 of SHAPE): ordinary weights first, then what breaks shortcuts."""
    rng = np.random.default_rng(7)
    normal = (rng.standard_normal(SHAPE) * 0.02).astype(np.float32)
    yield "normal", normal
    yield "heavy tails", (rng.standard_t(1.5, SHAPE) * 0.02).astype(np.float32)
    yield "bf16 values", (normal.view(np.uint32) & 0xFFFF0000).view(np.float32)
    yield "f16 values", normal.astype(np.float16).astype(np.float32)
    yield "positive", rng.random(SHAPE).astype(np.float32)
    yield "negative", -rng.random(SHAPE).astype(np.float32)
    yield "narrow below zero", (-1 - rng.random(SHAPE) * 1e-5).astype(np.float32)
    yield "narrow above zero", (1 + rng.random(SHAPE) * 1e-6).astype(np.float32)
    yield "constant", np.full(SHAPE, 0.37, np.float32)
    yield "negative constant", np.full(SHAPE, -0.37, np.float32)
    yield "zeros", np.zeros(SHAPE, np.float32)
    yield "negative zeros", -np.zeros(SHAPE, np.float32)
    yield "integers", rng.integers(-8, 8, SHAPE).astype(np.float32)
    yield "ternary", rng.integers(-1, 2, SHAPE).astype(np.float32) * np.float32(0.03)
    yield "alternating", np.tile(np.float32([0.5, -0.5]), (SHAPE[0], SHAPE[1] // 2))
    yield "ramp", (np.arange(normal.size, dtype=np.float32).reshape(SHAPE) - 2000) * np.float32(1e-4)
    yield "sparse", np.where(rng.random(SHAPE) < 0.05, normal, 0).astype(np.float32)
    yield "holes", _with_zeros(normal, slice(40, 340), slice(500, 700, 3))
    yield "outlier in each sub-block", _with_outliers(normal, 32, 1000)
    yield "outlier in each super-block", _with_outliers(normal, 256, 5000)
    yield "orders of magnitude", (10.0 ** rng.uniform(-9, 9, SHAPE) * rng.choice([-1, 1], SHAPE)).astype(np.float32)
    for scale in (1e15, 1e4, 1e-6, 1e-10, 1e-18, 1e-24, 1e-36, 1e-38, 1e-41, 1e-44):
        yield f"scale {scale:g}", (normal.astype(np.float64) * scale).astype(np.float32)


#: Enough for types whose reference is slow; the conformance tests take all kinds.
_ESSENTIAL = (
    "normal", "heavy tails", "bf16 values", "narrow below zero", "zeros", "sparse", "outlier in each sub-block",
    "scale 1e-36",
)  # fmt: skip


def essential_weight_kinds() -> Iterator[tuple[str, Float32]]:
    """Some of weight_kinds, two rows of two super-blocks each."""
    return ((name, np.ascontiguousarray(rows[:2, :512])) for name, rows in weight_kinds() if name in _ESSENTIAL)


def importance_kinds() -> Iterator[tuple[str, Float32]]:
    """(name, float32 of SHAPE[1]) for the importance of columns."""
    rng = np.random.default_rng(8)
    columns = SHAPE[1]
    uniform = rng.random(columns).astype(np.float32)
    yield "uniform", uniform
    yield "mostly zero", np.where(rng.random(columns) < 0.3, uniform, 0).astype(np.float32)
    yield "zero", np.zeros(columns, np.float32)
    yield "wide", (10.0 ** (rng.standard_normal(columns) * 2)).astype(np.float32)


def _with_zeros(weights: Float32, *columns: slice) -> Float32:
    changed = weights.copy()
    for part in columns:
        changed[:, part] = 0
    return changed


def _with_outliers(weights: Float32, every: int, factor: float) -> Float32:
    changed = weights.copy()
    changed[:, ::every] *= np.float32(factor)
    return changed
