"""Names of presets."""

from __future__ import annotations

import pytest

from modelbuild.formats.gguf.types import FILE_TYPE_NAMES, GgmlType
from modelbuild.quantize.presets import PRESETS, find_preset, list_spellings
from modelbuild.quantize.targets import TARGET_TYPES, find_type


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("q4_k_m", "Q4_K_M"),
        ("Q4_K", "Q4_K_M"),
        ("q5_k", "Q5_K_M"),
        ("Q3_K", "Q3_K_M"),
        ("15", "Q4_K_M"),
        ("30", "IQ4_XS"),
    ],
)
def test_spellings(text: str, name: str) -> None:
    """Case, aliases and file type numbers all lead to the preset."""
    assert PRESETS[name] is find_preset(text)


@pytest.mark.parametrize("text", ["", "Q4_2", "COPY", "NVFP4", "Q8_1", "4", "33", "1024", "Q4_K_M "[:-2]])
def test_other_names_are_no_presets(text: str) -> None:
    """Removed, unknown and internal types are not presets."""
    assert find_preset(text) is None


def test_file_types_are_those_that_readers_show() -> None:
    """Each preset's id is shown under the preset's name by readers that know it."""
    shown = {name: FILE_TYPE_NAMES.get(preset.file_type, name) for name, preset in PRESETS.items()}

    assert {name: name for name in PRESETS} == shown
    assert len(PRESETS) == len({preset.file_type for preset in PRESETS.values()})


def test_spellings_are_listed_once_without_numbers() -> None:
    """Suggestions offer names and aliases."""
    spellings = list_spellings()

    assert {"Q4_K", "Q4_K_M", "IQ2_M"} <= set(spellings)
    assert len(spellings) == len(set(spellings)) == len(PRESETS) + 3


def test_types_are_found_by_name_in_any_case() -> None:
    """ggml writes q4_K; users write what they like; types without a quantizer are not offered."""
    assert [GgmlType.Q4_K, GgmlType.Q4_K, None] == [find_type("q4_K"), find_type("Q4_k "), find_type("q8_K")]
    assert {preset.default for preset in PRESETS.values()} <= TARGET_TYPES
