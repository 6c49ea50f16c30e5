"""Writes the tables of docs/fidelity.md from what the tests that compare with recorded data reported.

usage: pytest tests/conformance tests/e2e/test_families.py --junitxml REPORT; python docs/generate_fidelity.py REPORT...
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "fidelity.md"
#: Differences that are meant, by checkpoint, each with its reason.
EXCEPTIONS = ROOT / "tests" / "conformance" / "fixture_exceptions.json"
BEGIN = "<!-- Written by docs/generate_fidelity.py from a report of tests/conformance. -->"
END = "<!-- End of the generated part. -->"
#: Result of a test → what the tables say. A test is skipped where nothing was recorded, or the machine cannot.
WORDS = {"passed": "equal", "skipped": "–", "failed": "**differs**"}
OUTPUT_TYPES = ("f32", "f16", "bf16", "auto")
FIXTURES = "test_checkpoint_equals_its_reference"
COLUMNS = {
    "quantized files": "test_every_preset_equals_the_reference",
    "token ids": "test_runtime_splits_texts_as_the_original",
    "logits": "test_runtime_computes_the_logits_of_the_original",
    "embedding": "test_runtime_computes_the_embedding_of_the_original",
}
PACKED = "test_bytes_are_those_of_llamacpp"
RECORDED_BLOCKS = "test_recorded_blocks"
#: What was replayed against the server → the test that did it.
SCENARIOS = {
    "all requests, with `--rewrite-gguf`": ("test_every_scenario", ""),
    "checkpoints, with `--rewrite-gguf`": ("test_converted_checkpoints", "options0-known0"),
    "checkpoints": ("test_converted_checkpoints", "options1-known1"),
    "requests without weights": ("test_scenarios_without_weights", ""),
}
CREATION = "test_recorded_creation"
RUNS = "test_converted_checkpoint_runs_in_llama_cpp"


@dataclass(frozen=True, slots=True)
class Result:
    """How a test ended, and what it noted down."""

    outcome: str
    notes: Mapping[str, str]


Results = Mapping[tuple[str, str], Result]


def read_report(path: Path) -> dict[tuple[str, str], Result]:
    """The result of each test by its function and parameters."""
    found = {}
    for case in ET.parse(path).iter("testcase"):
        function, _, parameters = case.attrib["name"].partition("[")
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        notes = {item.attrib["name"]: item.attrib["value"] for item in case.iter("property")}
        found[function, parameters.removesuffix("]")] = Result(outcome, notes)
    return found


def tables(results: Results) -> Iterator[str]:
    """The lines of the generated part."""
    yield from (BEGIN, "", "## Checkpoints", "")
    yield from _checkpoints(results)
    yield from ("", "## Classes", "")
    yield from _classes(results)
    yield from ("", "## Quantization types", "")
    yield from _types(results)
    yield from ("", "## API", "")
    yield from _scenarios(results)
    yield from ("", "## Everything that was compared", "")
    yield from _counts(results)
    yield from ("", END)


def _checkpoints(results: Results) -> Iterator[str]:
    exceptions = json.loads(EXCEPTIONS.read_text("utf-8"))
    yield "Keys and tensors for each type of the result; then what llama.cpp makes of it. A dash: nothing was recorded."
    yield ""
    yield f"| checkpoint | {' | '.join((*OUTPUT_TYPES, *COLUMNS))} |"
    yield "|---" * (1 + len(OUTPUT_TYPES) + len(COLUMNS)) + "|"
    names = {parameters.partition("-")[2] for function, parameters in results if function == FIXTURES}
    for name in sorted(names):
        but = f" but for {len(exceptions[name])}" if name in exceptions else ""
        cells = [_word(results, FIXTURES, f"{kind}-{name}", but) for kind in OUTPUT_TYPES]
        cells += [_word(results, function, name) for function in COLUMNS.values()]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    for name, reasons in exceptions.items():
        for what, reason in reasons.items():
            yield f"- {name}, `{what.partition(':')[0]}`: {reason}"


def _classes(results: Results) -> Iterator[str]:
    """The classes in both states; one that llama.cpp itself cannot run is neither."""
    found = {parameters: result.outcome for (function, parameters), result in results.items() if function == RUNS}
    yield "Checkpoints with random weights, converted; llama.cpp loads each and continues a text or makes a vector."
    yield ""
    for outcome, words in (("passed", "It runs"), ("failed", "It does **not** run")):
        names = sorted(name for name, result in found.items() if result == outcome)
        if names:
            yield f"{words} {len(names)}: {', '.join(names)}."
            yield ""


def _types(results: Results) -> Iterator[str]:
    levels = {
        parameters: result.notes
        for (function, parameters), result in results.items()
        if function == RECORDED_BLOCKS and result.notes
    }
    types = dict.fromkeys(parameters.rpartition("-")[0] for name, parameters in results if name == PACKED)
    yield "Against llama.cpp in the same process, with and without importance; then recorded blocks on each code path."
    yield ""
    yield f"| type | numpy | fastest compiled | {' | '.join(f'recorded: {level}' for level in levels)} |"
    yield "|---" * (3 + len(levels)) + "|"
    for type_ in types:
        cells = [_word(results, PACKED, f"{type_}-{path}") for path in ("numpy", "auto")]
        cells += [_of_blocks(notes.get(type_, "")) for notes in levels.values()]
        yield f"| {type_} | {' | '.join(cells)} |"


def _of_blocks(note: str) -> str:
    """`0 of 12 differ` → `equal (12)`; a type without a kernel has no note."""
    if not note:
        return "–"
    different, total = re.findall("[0-9]+", note)
    return f"equal ({total})" if different == "0" else f"**{different} of {total} differ**"


def _scenarios(results: Results) -> Iterator[str]:
    created = [result.outcome for (name, _), result in results.items() if name == CREATION]
    yield f"Recorded models made again, with their manifests, configs and layers: {created.count('passed')} equal,"
    yield f"{created.count('failed')} differ. Recorded requests replayed against `modelbuild serve`:"
    yield ""
    yield "| scenarios | passed | differ |"
    yield "|---|---:|---|"
    for words, test in SCENARIOS.items():
        notes = results[test].notes if test in results else {}
        if "passed" in notes:
            others = [
                f"{name.removeprefix('failed ')}: {reason}"
                for name, reason in notes.items()
                if name.startswith("failed ")
            ]
            yield f"| {words} | {notes['passed']} | {'; '.join(others) or 'none'} |"


def _counts(results: Results) -> Iterator[str]:
    yield "| what is compared | equal | differs | not recorded, or not possible on the machine |"
    yield "|---|---:|---:|---:|"
    for function in dict.fromkeys(name for name, _ in results):
        outcomes = [result.outcome for (name, _), result in results.items() if name == function]
        counts = " | ".join(str(outcomes.count(kind)) for kind in ("passed", "failed", "skipped"))
        yield f"| {re.sub('^test ', '', function.replace('_', ' '))} | {counts} |"


def _word(results: Results, function: str, parameters: str, but: str = "") -> str:
    outcome = results[function, parameters].outcome if (function, parameters) in results else "skipped"
    return WORDS[outcome] + (but if outcome == "passed" else "")


def main() -> int:
    """Write the page from the reports that are named; the exit status."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    results = {key: result for name in sys.argv[1:] for key, result in read_report(Path(name)).items()}
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(before + "\n".join(tables(results)) + rest.partition(END)[2], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
