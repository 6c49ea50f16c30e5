"""Every recorded adapter converts to the recorded keys and tensors, whatever form its base has."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.convert import Checkpoint, ConversionOptions, plan_conversion
from modelbuild.convert.lora import plan_adapter
from modelbuild.convert.lora_base import base_of_checkpoint, base_of_header
from modelbuild.convert.lora_names import adapter_files
from modelbuild.formats.gguf.reader import open_gguf
from tests.conformance.fixtures import adapter_fixtures, fixture_folder
from tests.reference import key_differences, read_reference, tensor_differences
from tests.written import write_conversion

TYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}


@pytest.mark.parametrize(("name", "base"), adapter_fixtures())
@pytest.mark.parametrize("recorded", TYPES)
@pytest.mark.parametrize("form", ["checkpoint", "gguf"])
def test_adapter_equals_its_reference(
    shared: Path, tmp_path: Path, name: str, base: str, recorded: str, form: str
) -> None:
    """Keys and tensors equal the recording in order, name, type, shape and content."""
    checkpoint = Checkpoint.of_directory(fixture_folder(shared, base))
    known = base_of_checkpoint(checkpoint)
    if form == "gguf":
        conversion = plan_conversion(checkpoint, ConversionOptions())
        known = base_of_header(open_gguf(write_conversion(conversion, tmp_path / "base.gguf")))

    adapter = plan_adapter(adapter_files(fixture_folder(shared, name)), known, TYPES[recorded])

    reference = read_reference(shared / "fixtures" / name / "ref" / f"{recorded}.json")
    assert [] == [*key_differences(adapter, reference), *tensor_differences(adapter, reference)]
