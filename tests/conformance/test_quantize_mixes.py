"""The type policy against what llama-quantize chose for every recorded model, preset and option."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelbuild.formats.gguf.types import GgmlType
from modelbuild.quantize.mixes import ModelFacts, TensorFacts, choose_types
from modelbuild.quantize.presets import PRESETS, find_preset
from tests.unit.quantize.mix_records import read_mix_records


def test_every_recorded_run_is_predicted(shared: Path) -> None:
    """All presets, matrix runs and option runs of all models give the recorded types in the recorded order."""
    records = read_mix_records(shared / "golden" / "quantize" / "mixes.json")

    runs = [(record.name, *run) for record in records for run in record.differing_runs()]

    assert [] == runs
    assert sum(record.run_count for record in records) > 800


def _quantized_references(shared: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    for path in sorted((shared / "fixtures").glob("*/ref/quantize/*.json")):
        source = json.loads((path.parent.parent / "f16.json").read_text())
        yield path, source, json.loads(path.read_text())


def test_types_beside_the_fixtures_are_predicted(shared: Path) -> None:
    """The quantized references of the checkpoint fixtures have the predicted types, in the predicted order."""
    count = 0
    for path, source, reference in _quantized_references(shared):
        preset = find_preset(reference["type"])
        assert preset is not None
        facts = [TensorFacts(t["name"], tuple(t["shape"]), GgmlType[t["type"]]) for t in source["tensors"]]
        choices = choose_types(preset, facts, _model_facts(source["kv"]))

        expected = [(t["name"], t["type"]) for t in reference["tensors"]]
        assert expected == [(choice.name, choice.type.name) for choice in choices], path
        count += 1
    assert count >= 100


def _model_facts(kv: list[dict[str, Any]]) -> ModelFacts:
    values = {item["key"]: item.get("value") for item in kv}
    arch = values["general.architecture"]

    def first(name: str, default: int = 0) -> int:
        value = values.get(f"{arch}.{name}", default)
        return int(value[0] if isinstance(value, list) else value)

    heads = first("attention.head_count")
    return ModelFacts(arch, first("block_count"), first("expert_count"), heads, first("attention.head_count_kv", heads))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_records_exist_for_presets(shared: Path, name: str) -> None:
    """Every preset occurs in at least one recorded run, so none of them is unproven."""
    records = read_mix_records(shared / "golden" / "quantize" / "mixes.json")

    assert any(name in record.presets for record in records)
