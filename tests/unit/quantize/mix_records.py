"""Reads recorded runs of llama-quantize: which type each tensor of a synthetic model got."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.errors import ModelbuildError
from modelbuild.formats.gguf.types import GgmlType
from modelbuild.quantize.mixes import ModelFacts, TensorFacts, TypeOptions, choose_types, order_tensors
from modelbuild.quantize.presets import find_preset
from modelbuild.quantize.targets import find_type
from modelbuild.quantize.tensor_rules import TensorRule, make_tensor_rule


@dataclass(frozen=True, slots=True)
class MixRecord:
    """One model of the record and all its runs."""

    legend: dict[str, str]
    record: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @property
    def presets(self) -> set[str]:
        return {*self.record["types"], *self.record.get("types_imatrix", ())}

    @property
    def run_count(self) -> int:
        return sum(1 for _ in self._runs())

    def facts(self) -> list[TensorFacts]:
        return [
            TensorFacts(name, tuple(shape), GgmlType[type_.upper()]) for name, shape, type_ in self.record["tensors"]
        ]

    def model(self) -> ModelFacts:
        arch = self.record["arch"]
        values = {key: value[0] if isinstance(value, list) else value for key, _, value in self.record["kv"]}

        def get(name: str, default: int = 0) -> int:
            return int(values.get(f"{arch}.{name}", default))

        heads = get("attention.head_count")
        kv_heads = get("attention.head_count_kv", heads)
        nextn = get("nextn_predict_layers")
        return ModelFacts(arch, get("block_count"), get("expert_count"), heads, kv_heads, nextn)

    def expected_order(self) -> list[str]:
        return [self.record["tensors"][index][0] for index in self.record["order"]]

    def differing_runs(self) -> list[tuple[str, str, str]]:
        """(what, expected, actual) of runs whose prediction is wrong; texts of legend letters or error messages."""
        found = []
        for what, preset, options, expected in self._runs():
            actual = self._predict(preset, options)
            wanted = "error" if isinstance(expected, dict) else expected
            if wanted != actual:
                found.append((what, wanted, actual))
        return found

    def _runs(self) -> Iterator[tuple[str, str, TypeOptions, Any]]:
        for preset, expected in self.record["types"].items():
            yield preset, preset, TypeOptions(), expected
        matrix = TypeOptions(importance={name for name, shape, _ in self.record["tensors"] if len(shape) > 1})
        for preset, expected in self.record.get("types_imatrix", {}).items():
            yield f"{preset} with matrix", preset, matrix, expected
        for run in self.record.get("options", []):
            yield f"{run['ftype']} {run['args']}", run["ftype"], _read_arguments(run["args"]), run["types"]

    def _predict(self, preset_name: str, options: TypeOptions) -> str:
        letters = {GgmlType[name]: letter for letter, name in self.legend.items()}
        if preset_name == "COPY":
            return "".join(letters[tensor.type] for tensor in order_tensors(self.facts()))
        preset = find_preset(preset_name)
        assert preset is not None
        try:
            choices = choose_types(preset, self.facts(), self.model(), options)
        except ModelbuildError:
            return "error"
        assert self.expected_order() == [choice.name for choice in choices]
        return "".join(letters[choice.type] for choice in choices)


def _read_arguments(arguments: list[str]) -> TypeOptions:
    rules: list[TensorRule] = []
    options: dict[str, Any] = {}
    rest = iter(arguments)
    for argument in rest:
        if argument == "--tensor-type":
            rules.append(make_tensor_rule(*next(rest).split("=")))
        elif argument in ("--output-tensor-type", "--token-embedding-type"):
            key = "output_type" if "output" in argument else "embedding_type"
            options[key] = find_type(next(rest))
        elif argument in ("--pure", "--leave-output-tensor"):
            options["pure" if argument == "--pure" else "keep_output"] = True
        else:
            assert argument == "--allow-requantize", argument
    return TypeOptions(tensor_types=rules, **options)


def read_mix_records(path: Path) -> list[MixRecord]:
    """All models of a file of recorded runs."""
    document = json.loads(path.read_text())
    return [MixRecord(document["legend"], model) for model in document["models"]]
