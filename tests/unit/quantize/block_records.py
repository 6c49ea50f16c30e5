"""Reads recorded outputs of llama.cpp's quantizers and makes the inputs that they were recorded for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelbuild.formats.gguf.types import GgmlType

Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]
Pack = Callable[[Float32, GgmlType, Float32 | None], Uint8]
Unpack = Callable[[Uint8, GgmlType, tuple[int, ...]], Float32]


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """One input and the digests of what each type makes of it."""

    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.record["id"])

    def weights(self) -> Float32:
        values = np.ascontiguousarray(_edited(self.record, _drawn(self.record)), np.float32)
        _require_digest(values, self.record["x_sha256"])
        return values

    def importance(self) -> Float32 | None:
        if "im_seed" not in self.record:
            return None
        draws = np.random.default_rng(self.record["im_seed"]).random(self.record["shape"][1])
        values = draws.astype(np.float32) * np.float32(4) + np.float32(0.01)
        _require_digest(values, self.record["im_sha256"])
        return values

    def outputs(self) -> Iterator[tuple[GgmlType, Float32 | None, Mapping[str, str]]]:
        """(type, importance, digests) for everything recorded."""
        for name, digests in self.record["out"].items():
            yield GgmlType[name], None, digests
        importance = self.importance()
        for name, digests in self.record.get("out_imatrix", {}).items():
            yield GgmlType[name], importance, digests

    def differing(self, pack: Pack, unpack: Unpack) -> list[str]:
        """What comes out differently: type, with or without importance, packed or decoded."""
        weights, found = self.weights(), []
        for type_, importance, digests in self.outputs():
            packed = pack(weights, type_, importance)
            what = f"{type_.name}{'' if importance is None else ' with importance'}"
            if not has_digest(packed, digests["q_sha256"]):
                found.append(f"{what}: packed")
            decoded = digests.get("deq_sha256")
            if decoded and not has_digest(unpack(packed, type_, weights.shape), decoded):
                found.append(f"{what}: decoded")
        return found


def read_block_records(path: Path) -> list[BlockRecord]:
    """All cases of a file of recorded blocks."""
    return [BlockRecord(case) for case in json.loads(path.read_text())["cases"]]


def _drawn(case: Mapping[str, Any]) -> npt.NDArray[Any]:
    kind, shape, rng = case["kind"], tuple(case["shape"]), np.random.default_rng(case.get("seed"))
    if kind.startswith("normal"):
        return rng.standard_normal(shape).astype(np.float32)
    if kind == "student_t":
        return rng.standard_t(case["df"], shape).astype(np.float32)
    if kind == "uniform":
        return rng.random(shape).astype(np.float32)
    if kind == "integers":
        return rng.integers(case["lo"], case["hi"], shape).astype(np.float32)
    if kind == "ramp":
        size = shape[0] * shape[1]
        return (np.arange(size, dtype=np.float32) - np.float32(size // 2)).reshape(shape)
    return np.full(shape, {"zeros": 0, "const": 1}[kind], np.float32)


def _edited(case: Mapping[str, Any], drawn: npt.NDArray[Any]) -> npt.NDArray[Any]:
    values = drawn * np.float32(case.get("scale", 1))
    kind = case["kind"]
    if kind == "normal_f16":
        return values.astype(np.float16).astype(np.float32)
    if kind == "normal_bf16":
        return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    for start, stop in case.get("holes", ()):
        values[:, start:stop] = 0
    if kind == "normal_outliers":
        values[:, :: case["every"]] *= np.float32(case["factor"])
    return values


def has_digest(values: npt.NDArray[Any], digest: str) -> bool:
    """Does the SHA-256 of the bytes start with these digits?"""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest().startswith(digest)


def _require_digest(values: npt.NDArray[Any], digest: str) -> None:
    assert has_digest(values, digest), "the generator of the input differs, not the code under test"
