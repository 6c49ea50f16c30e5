"""Every recorded checkpoint converts to the recorded keys and tensors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from modelbuild.convert import Checkpoint, ConversionOptions, plan_conversion
from tests.conformance.fixtures import MINILM, MINILM_PACKAGE, fixture_folder, model_fixtures
from tests.reference import key_differences, read_reference, tensor_differences

#: Differences that are meant, each with its reason; every one of them must occur.
EXCEPTIONS = Path(__file__).parent / "fixture_exceptions.json"
TYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "auto": "auto"}


def checkpoint_of(shared: Path, name: str, scratch: Path) -> Path:
    folder = fixture_folder(shared, name)
    if name != MINILM:
        return folder
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {MINILM_PACKAGE} is not installed")
    link = scratch / folder.name
    link.symlink_to(Path(spec.submodule_search_locations[0]) / "model", target_is_directory=True)
    return link


@pytest.mark.parametrize("name", model_fixtures())
@pytest.mark.parametrize("recorded", TYPES)
def test_checkpoint_equals_its_reference(shared: Path, tmp_path: Path, name: str, recorded: str) -> None:
    """Keys and tensors equal the recording in order, name, type, shape and content, but for the listed exceptions."""
    path = shared / "fixtures" / name / "ref" / f"{recorded}.json"
    reference = read_reference(path)
    checkpoint = Checkpoint.of_directory(checkpoint_of(shared, name, tmp_path))
    conversion = plan_conversion(checkpoint, ConversionOptions(float_type=TYPES[recorded]))

    differences = [*key_differences(conversion, reference), *tensor_differences(conversion, reference)]

    expected = json.loads(EXCEPTIONS.read_text("utf-8")).get(name, {})
    assert sorted(expected) == sorted(differences)
