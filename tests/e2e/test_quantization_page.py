"""docs/quantization.md says what the code does: presets, rule texts and examples."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from modelbuild.errors import ModelbuildError
from modelbuild.formats.gguf.types import block_bytes, block_size
from modelbuild.quantize.mixes import TypeOptions, choose_types
from modelbuild.quantize.presets import PRESETS, find_preset
from tests.space import ROOT, Space
from tests.tinydocs import CHECKPOINT
from tests.unit.quantize.mix_records import read_mix_records

PAGE = (ROOT / "docs" / "quantization.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RECORDS = Path(__file__).parents[1] / "data" / "quantize" / "mixes.json"
#: The parts of a rule text that depend on the tensor, as the page writes them.
VARIABLE = [
    (r"rule \S+=\w+", "rule PATTERN=TYPE"),
    (r"rows of \d+ do not fit \w+", "rows of N do not fit TYPE"),
    (r"rows of \d+$", "rows of N"),
    (r"name contains .*", "name contains …"),
    (r"\(\d+ of \d+\)", "(I of N)"),
    (r"first \d+ \(\d+\)", "first N (I)"),
    (r"\(\d+\)", "(I)"),
]


def test_presets_are_listed_in_order() -> None:
    """Name, aliases, file type, type and bits of every preset stand in the table as they are in the code."""
    rows = re.findall(r"^\| (\w+) \| (\w*) ?\| (\d+) \| (\w+) \| ([\d.]+) \| \w* ?\|$", PAGE, re.MULTILINE)

    assert rows == [
        (
            preset.name,
            " ".join(preset.aliases),
            str(preset.file_type),
            preset.default.name,
            f"{8 * block_bytes(preset.default) / block_size(preset.default):g}",
        )
        for preset in PRESETS.values()
    ]


def test_presets_that_need_a_matrix_are_marked() -> None:
    """The last column says "needed" exactly where a plain model is refused without a matrix."""
    marked = set(re.findall(r"^\| (\w+) \|.* needed \|$", PAGE, re.MULTILINE))
    refused = set()
    for record in read_mix_records(RECORDS)[:1]:
        for preset in PRESETS.values():
            try:
                choose_types(preset, record.facts(), record.model())
            except ModelbuildError:
                refused.add(preset.name)

    assert marked == refused


def test_rule_texts_are_listed() -> None:
    """Every text that recorded models give occurs on the page."""
    listed = set(re.findall(r"`([^`]+)`", FENCE.sub("", PAGE)))

    assert sorted(text for text in set(_texts()) if not _is_listed(text, listed)) == []


def _texts() -> Iterator[str]:
    for record in read_mix_records(RECORDS):
        names = frozenset(tensor.name for tensor in record.facts())
        for preset in PRESETS:
            for importance in (frozenset(), names):
                try:
                    options = TypeOptions(importance=importance, ollama_rules=True)
                    chosen = choose_types(find_preset(preset), record.facts(), record.model(), options)  # type: ignore[arg-type]
                except ModelbuildError:
                    continue
                yield from {choice.rule for choice in chosen}


def _is_listed(text: str, listed: set[str]) -> bool:
    for pattern, word in VARIABLE:
        text = re.sub(pattern, word, text)
    head, _, tail = text.partition("; ")
    general = f"…:{head.partition(':')[2]}"
    return (head in listed or general in listed) and (not tail or f"…; {tail}" in listed)


def test_python_examples_run() -> None:
    """Both examples run as they stand, and the second prints what the page shows."""
    fences = FENCE.findall(PAGE)
    examples = [body for language, body in fences if language == "python"]
    shown = [body for language, body in fences if language == "text"]

    printed = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        for code in examples
    ]

    assert ["", *shown] == printed


def test_recipes_build(space: Space) -> None:
    """The recipes on the page are valid, and give the types that they name."""
    recipes = [body for language, body in FENCE.findall(PAGE) if language == "yaml"]
    for recipe in recipes:
        space.recipe(recipe.replace("./checkpoint", str(CHECKPOINT)))
        outcome = space.run("plan", "--tensors")
        assert 0 == outcome.status, outcome.stderr
    assert 2 == len(recipes)
    assert "blk.1.attn_k.weight  BF16 → Q8_0  rule blk[.](0|1)[.]=Q8_0" in outcome.stdout
    assert "blk.2.ffn_down.weight  BF16 → Q5_K  rule ffn_down=Q5_K" in outcome.stdout
