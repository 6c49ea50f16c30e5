"""Converted checkpoints behave in real llama.cpp as their originals do in the library they come from.

A wrong permutation of queries and keys, a wrong order of a fused matrix or a wrong base of the rotation loads without
complaint; only numbers show it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelbuild.convert import Checkpoint, ConversionOptions, plan_conversion
from tests.conformance.fixtures import MINILM, fixture_folder, model_fixtures
from tests.llama_runtime import LlamaRuntime, llama
from tests.written import write_conversion

pytestmark = pytest.mark.llamacpp
#: The runtime computes attention in half precision; how far that leads off was recorded for each checkpoint.
_LEAST_TOLERANCE, _TOLERANCE_FACTOR = 5e-3, 2.0
Probed = tuple[LlamaRuntime, Mapping[str, Any]]


@pytest.fixture(params=model_fixtures(), scope="module")
def probed(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probed]:
    """A model in llama.cpp; what its original answered, and what the recording says about the agreement of both."""
    name = request.param
    path = shared / "fixtures" / name / "ref" / "probe.json"
    if not path.exists() or name == MINILM:
        pytest.skip("nothing was recorded")
    listed = json.loads((shared / "fixtures" / "fixtures.json").read_text("utf-8"))["fixtures"]
    checks = next(item for item in listed if item["name"] == name)["checks"]
    conversion = plan_conversion(
        Checkpoint.of_directory(fixture_folder(shared, name)), ConversionOptions(float_type="F32")
    )
    file = write_conversion(conversion, tmp_path_factory.mktemp("probe") / "model.gguf")
    probe = {"greedy_equal": True, **checks, **json.loads(path.read_text("utf-8"))}
    with llama(file) as model:
        yield model, probe
    file.unlink()


def test_runtime_splits_texts_as_the_original(probed: Probed) -> None:
    """All recorded texts get the recorded ids, with and without the tokens around them."""
    model, probe = probed
    texts = probe.get("texts", [])

    assert [text["ids"] for text in texts] == [model.tokenize(text["text"]) for text in texts]
    assert [text["ids_with_special"] for text in texts] == [
        model.tokenize(text["text"], special=True) for text in texts
    ]


def test_runtime_computes_the_logits_of_the_original(probed: Probed) -> None:
    """The eight largest logits after the recorded tokens agree, the largest is the same, and so is what follows."""
    model, probe = probed
    if "last_logits_top8" not in probe:
        pytest.skip("no logits were recorded")
    numbers, values = zip(*probe["last_logits_top8"], strict=True)

    tolerance = max(_LEAST_TOLERANCE, _TOLERANCE_FACTOR * probe["max_abs_diff"])
    model.forget()
    logits = model.logits(probe["tokens"])

    assert numbers[0] == int(np.argmax(logits))
    np.testing.assert_allclose(logits[list(numbers)], values, atol=tolerance, rtol=0)
    if probe["greedy_equal"]:  # in MXFP4 the runtime computes with fewer bits, so that close choices differ
        greedy = probe["greedy_from_first6"]
        assert greedy == model.continue_greedily(probe["tokens"][:6], len(greedy))


def test_runtime_computes_the_embedding_of_the_original(probed: Probed) -> None:
    """The direction of a recorded embedding agrees."""
    model, probe = probed
    if "embedding" not in probe:
        pytest.skip("no embedding was recorded")
    wanted = np.asarray(probe["embedding"], np.float32)

    found = model.embedding(probe["tokens"])

    cosine = float(found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted))
    assert cosine == pytest.approx(1.0, abs=1e-5)


def test_runtime_translates(probed: Probed) -> None:
    """A model of encoder and decoder encodes and answers."""
    model, probe = probed
    if "texts" in probe:
        pytest.skip("the model has a decoder alone")

    logits = model.translation_logits(probe["tokens"])

    assert np.isfinite(logits).all()
    assert float(np.ptp(logits)) > 0
