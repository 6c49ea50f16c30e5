"""All recorded blocks, files and quantized checkpoints, on every path; and llama.cpp itself on many more inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.formats.gguf.writer import f32, lay_out, string, u32
from modelbuild.quantize import pack, unpack
from modelbuild.quantize.targets import SEARCH_NEEDS_IMPORTANCE, TARGET_TYPES
from tests.space import Space
from tests.unit.quantize.block_records import read_block_records
from tests.unit.quantize.llamacpp_oracle import pack_with_llamacpp

Float32 = npt.NDArray[np.float32]
PATHS = ("numpy", "auto")


@pytest.mark.parametrize("path", PATHS)
def test_recorded_blocks(shared: Path, path: Any) -> None:
    """All 645 outputs have the recorded bytes and decode to the recorded floats."""
    found = []
    for record in read_block_records(shared / "golden" / "quantize" / "blocks.json"):
        differing = record.differing(
            lambda weights, type_, importance: pack(weights, type_, importance=importance, path=path), unpack
        )
        found += [(record.id, what) for what in differing]

    assert [] == found


def _weights(shape: tuple[int, int], seed: int) -> Iterator[tuple[str, Float32]]:
    """Everything that a checkpoint may hold, from ordinary to the edges of float32 that float16 scales can reach."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(shape).astype(np.float32)
    small = normal * np.float32(0.02)
    yield "normal", small
    yield "student t 2", (rng.standard_t(2, shape) * 0.05).astype(np.float32)
    yield "student t 1", (rng.standard_t(1, shape) * 0.01).astype(np.float32)
    yield "bf16 values", (small.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    yield "f16 values", small.astype(np.float16).astype(np.float32)
    yield "positive", rng.random(shape).astype(np.float32)
    yield "negative", -rng.random(shape).astype(np.float32)
    yield "constant", np.full(shape, np.float32(rng.standard_normal()))
    yield "constant rows", np.repeat(normal[:, :1], shape[1], axis=1)
    yield "zeros", np.zeros(shape, np.float32)
    yield "negative zeros", -np.zeros(shape, np.float32)
    yield "sparse", np.where(rng.random(shape) < 0.1, normal, np.float32(0))
    yield "sparse, negative zeros", np.where(rng.random(shape) < 0.1, normal, np.float32(-0.0))
    yield "empty groups", np.where(np.repeat(rng.random((shape[0], shape[1] // 16)) < 0.5, 16, axis=1), normal, 0)
    yield "outlier per 32", np.where(np.arange(shape[1]) % 32 == 0, small * np.float32(1000), small)
    yield "outlier per 256", np.where(np.arange(shape[1]) % 256 == 0, np.float32(100), small)
    yield "one value per 32", np.where(np.arange(shape[1]) % 32 == 5, normal, np.float32(0))
    yield "integers", rng.integers(-8, 8, shape).astype(np.float32) / np.float32(8)
    yield "ternary", rng.integers(-1, 2, shape).astype(np.float32) * np.float32(0.03)
    yield "ramp", (np.arange(normal.size).reshape(shape) - normal.size // 2).astype(np.float32) * np.float32(1e-3)
    yield "powers of two", (np.exp2(rng.integers(-20, 12, shape)) * rng.choice([-1, 1], shape)).astype(np.float32)
    yield "below powers of two", np.nextafter(np.exp2(rng.integers(-20, 12, shape)).astype(np.float32), np.float32(0))
    yield "magnitudes", normal * np.exp2(rng.integers(-20, 12, shape)).astype(np.float32)
    yield "drift", ((np.arange(normal.size).reshape(shape) - 2048 + 10 * normal) * 1e-3).astype(np.float32)
    for exponent in (4, -6, -10, -14, -15, -16, -20, -25, -30, -36, -38, -40, -44):
        yield f"scale 1e{exponent}", (normal.astype(np.float64) * 10.0**exponent).astype(np.float32)


def _importances(columns: int, seed: int) -> Iterator[tuple[str, Float32 | None]]:
    rng = np.random.default_rng(seed)
    uniform = (rng.random(columns) * 4 + 0.01).astype(np.float32)
    yield "none", None
    yield "uniform", uniform
    yield "partly zero", np.where(rng.random(columns) < 0.3, np.float32(0), uniform)
    yield "zero in runs", np.where(np.arange(columns) % 128 < 48, np.float32(0), uniform)
    yield "zero", np.zeros(columns, np.float32)
    yield "few columns", np.where(rng.random(columns) < 0.05, 1e6, 1e-6).astype(np.float32)
    yield "wide", (rng.standard_normal(columns) ** 2 * rng.choice([1e-6, 1, 1e6], columns)).astype(np.float32)


@pytest.mark.llamacpp
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("type_", sorted(TARGET_TYPES), ids=lambda type_: type_.name)
def test_bytes_are_those_of_llamacpp(shared: Path, type_: GgmlType, path: Any) -> None:
    """Every type on every kind of weights with every kind of importance, also on single blocks."""
    found = []
    shapes = [(2, 512), (1, 256)] if type_.name.startswith(("IQ1", "IQ2", "IQ3")) else [(6, 1024), (1, 256)]
    for shape in shapes:
        for name, weights in _weights(shape, seed=21):
            for what, importance in _importances(shape[1], seed=22):
                if importance is None and type_ in SEARCH_NEEDS_IMPORTANCE:
                    continue
                packed = pack(weights, type_, importance=importance, path=path, allow_nonfinite=True)
                if not np.array_equal(pack_with_llamacpp(weights, type_, importance), packed):
                    found.append(f"{shape} {name}, importance {what}")

    assert [] == found


# -- whole files -------------------------------------------------------------------------------------------------------


def _recorded_files(shared: Path) -> list[dict[str, Any]]:
    document = json.loads((shared / "golden" / "quantize" / "mixes.json").read_text())
    files: list[dict[str, Any]] = document["files"]
    return files


def _write_source(record: dict[str, Any]) -> bytes:
    """The GGUF file that a record describes."""
    make = {"u32": u32, "f32": f32}
    kv = [string("general.architecture", record["arch"])]
    kv += [make[kind](key, value) for key, kind, value in record["kv"]]
    kv += [u32("general.file_type", 1)]
    tensors = [(name, shape, GgmlType[kind.upper()]) for name, shape, kind in record["tensors"]]
    layout = lay_out(kv, tensors)
    data = bytearray(layout.file_size)
    data[: layout.data_offset] = layout.header
    rng = np.random.default_rng(record["seed"])
    for (_, shape, type_), slot in zip(tensors, layout.slots, strict=True):
        values = (rng.standard_normal(tuple(reversed(shape))) * 0.02).astype(np.float32)
        raw = (values.astype(np.float16) if type_ is GgmlType.F16 else values).tobytes()
        start = layout.data_offset + slot.offset
        data[start : start + len(raw)] = raw
    assert record["input_sha256"] == hashlib.sha256(data).hexdigest(), "the input differs, not the code under test"
    return bytes(data)


@pytest.mark.parametrize("index", range(2))
def test_recorded_files(shared: Path, space: Space, index: int) -> None:
    """A GGUF built to several presets is, whole file for whole file, what llama-quantize wrote."""
    record = _recorded_files(shared)[index]
    space.write("source.gguf", _write_source(record))
    models = {
        name: {"from": "./source.gguf", **({"rewrite_gguf": True} if name == "COPY" else {"quantize": name})}
        for name in record["outputs"]
    }
    space.recipe(json.dumps({"models": models}))

    outcome = space.run("build")

    assert 0 == outcome.status, outcome.stderr
    expected = {name: output["sha256"] for name, output in record["outputs"].items()}
    assert expected == {name: _weights_digest(space, name) for name in expected}


def _weights_digest(space: Space, model: str) -> str:
    manifest = next(space.store.glob(f"manifests/*/*/{model.lower()}/latest"), None) or next(
        path for path in space.store.glob("manifests/*/*/*/latest") if path.parent.name.lower() == model.lower()
    )
    layers = json.loads(manifest.read_text())["layers"]
    digests = [layer["digest"] for layer in layers if layer["mediaType"] == "application/vnd.ollama.image.model"]
    return str(digests[0]).removeprefix("sha256:")


FIXTURES = (
    "deepseek-v2", "falcon", "gemma2", "gemma3", "llama31-sharded", "mixtral", "phi3-longrope", "qwen2", "smollm3",
    "t5", "tinylm",
)  # fmt: skip


def test_all_fixtures_are_listed(shared: Path) -> None:
    """No quantized reference is left out."""
    assert list(FIXTURES) == sorted(path.parents[1].name for path in shared.glob("fixtures/*/ref/quantize"))


@pytest.mark.parametrize("name", FIXTURES)
def test_checkpoint_built_through_f16(shared: Path, space: Space, name: str) -> None:
    """Built with `intermediate: f16`, a checkpoint has the types and bytes of llama-quantize run on the F16 file."""
    assert [] == list(_differences(shared / "fixtures" / name, space))


def _differences(fixture: Path, space: Space) -> Iterator[str]:
    folder = fixture / "ref" / "quantize"
    checkpoint = next(path.parent for path in sorted(fixture.glob("*/config.json")))
    references = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    models = {name: {"from": str(checkpoint), "quantize": name, "intermediate": "f16"} for name in references}
    source = json.loads((folder.parent / "f16.json").read_text())
    if pre_tokenizer := source.get("pre_tokenizer_forced"):
        for model in models.values():
            model["pre_tokenizer"] = pre_tokenizer
    space.recipe(json.dumps({"models": models}))
    outcome = space.run("build")
    if "unsupported architecture" in outcome.stderr:
        pytest.skip("the converter does not know the architecture, which test_fixtures.py reports")
    assert 0 == outcome.status, outcome.stderr
    for name, reference in references.items():
        path = space.store / "blobs" / f"sha256-{_weights_digest(space, name)}"
        expected = [(item["name"], item["type"], item["sha256"]) for item in reference["tensors"]]
        actual = list(_tensor_digests(path))
        if expected != actual:
            wrong = [mine[:2] for mine, theirs in zip(actual, expected, strict=False) if mine != theirs]
            yield f"{name}: {len(expected)} tensors expected, {len(actual)} found, wrong: {wrong[:3]}"


def _tensor_digests(path: Path) -> Iterator[tuple[str, str, str]]:
    header = open_gguf(path)
    with path.open("rb") as file:
        for tensor in header.tensors:
            file.seek(header.data_offset + tensor.offset)
            yield tensor.name, tensor.type.name, hashlib.sha256(file.read(tensor.size_bytes)).hexdigest()
