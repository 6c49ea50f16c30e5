"""Checkpoints built to every preset, against llama-quantize's files: whole files where the keys agree, else tensors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from modelbuild.formats.gguf.reader import open_gguf
from tests.space import Space

SHARED = os.environ.get("MODELBUILD_SHARED", "")
FIXTURES = Path(SHARED or ".") / "fixtures"
NAMES = sorted(path.parent.parent.name for path in FIXTURES.glob("*/ref/quantize")) if SHARED else []


def _checkpoint(name: str) -> Path:
    entries = json.loads((FIXTURES / "fixtures.json").read_text())["fixtures"]
    return FIXTURES / name / next(entry["folder"] for entry in entries if entry["name"] == name)


def _describe(path: Path) -> list[dict[str, object]]:
    header = open_gguf(path)
    data = path.read_bytes()
    rows = []
    for tensor in header.tensors:
        start = header.data_offset + tensor.offset
        digest = hashlib.sha256(data[start : start + tensor.size_bytes]).hexdigest()
        rows.append({"name": tensor.name, "type": tensor.type.name, "sha256": digest})
    return rows


def _expected(reference: Mapping[str, object]) -> list[dict[str, object]]:
    tensors = reference["tensors"]
    assert isinstance(tensors, list)
    return [{key: tensor[key] for key in ("name", "type", "sha256")} for tensor in tensors]


@pytest.mark.skipif(not SHARED, reason="needs the reference data")
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_equals_the_reference(space: Space, name: str) -> None:
    """All presets of one checkpoint, packed from one read through F16, have the reference's tensors in its order."""
    references = {
        path.stem: json.loads(path.read_text()) for path in sorted((FIXTURES / name / "ref/quantize").glob("*.json"))
    }
    space.recipe(
        "models:\n" + "".join(
            f"  m-{preset}: {{from: '{_checkpoint(name)}', quantize: {preset}, intermediate: f16}}\n"
            for preset in references
        )
    )  # fmt: skip
    space.build()

    wrong = []
    for preset, reference in references.items():
        manifest = next((space.store / "manifests").rglob(f"m-{preset}/latest"))
        layers = json.loads(manifest.read_text())["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"].endswith(".model"))
        if digest == f"sha256:{reference['file_sha256']}":
            continue
        found, wanted = _describe(space.store / "blobs" / digest.replace(":", "-")), _expected(reference)
        wrong += [f"{preset}: {row} is not {other}" for row, other in zip(found, wanted, strict=False) if row != other][
            :2
        ]
        if len(found) != len(wanted):
            wrong.append(f"{preset}: {len(found)} tensors, {len(wanted)} expected")
    assert wrong == []
