"""Writes the tables of docs/fidelity.md from what the tests that compare with recorded data reported.

usage: pytest tests/conformance --junitxml REPORT && python docs/generate_fidelity.py REPORT
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "fidelity.md"
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

Results = Mapping[tuple[str, str], str]


def read_report(path: Path) -> Results:
    """The result of each test by its function and parameters."""
    found = {}
    for case in ET.parse(path).iter("testcase"):
        function, _, parameters = case.attrib["name"].partition("[")
        kinds = {child.tag for child in case}
        result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[function, parameters.removesuffix("]")] = result
    return found


def tables(results: Results) -> Iterator[str]:
    """The lines of the generated part."""
    yield from (BEGIN, "", "## Checkpoints", "")
    yield from _checkpoints(results)
    yield from ("", "## Quantization types", "")
    yield from _types(results)
    yield from ("", "## Everything that was compared", "")
    yield from _counts(results)
    yield from ("", END)


def _checkpoints(results: Results) -> Iterator[str]:
    yield f"| checkpoint | {' | '.join((*OUTPUT_TYPES, *COLUMNS))} |"
    yield "|---" * (1 + len(OUTPUT_TYPES) + len(COLUMNS)) + "|"
    names = {parameters.partition("-")[2] for function, parameters in results if function == FIXTURES}
    for name in sorted(names):
        cells = [_word(results, FIXTURES, f"{kind}-{name}") for kind in OUTPUT_TYPES]
        cells += [_word(results, function, name) for function in COLUMNS.values()]
        yield f"| {name} | {' | '.join(cells)} |"


def _types(results: Results) -> Iterator[str]:
    function = "test_bytes_are_those_of_llamacpp"
    types = dict.fromkeys(parameters.rpartition("-")[0] for name, parameters in results if name == function)
    yield "| type | numpy | fastest compiled |"
    yield "|---|---|---|"
    for type_ in types:
        yield f"| {type_} | {' | '.join(_word(results, function, f'{type_}-{path}') for path in ('numpy', 'auto'))} |"
    yield ""
    yield "| recorded blocks of all types, on | |"
    yield "|---|---|"
    for name, parameters in results:
        if name == "test_recorded_blocks" and not parameters.isdigit():
            yield f"| {parameters} | {_word(results, name, parameters)} |"


def _counts(results: Results) -> Iterator[str]:
    yield "| what is compared | equal | differs | not recorded, or not possible on the machine |"
    yield "|---|---:|---:|---:|"
    for function in dict.fromkeys(name for name, _ in results):
        outcomes = [result for (name, _), result in results.items() if name == function]
        counts = " | ".join(str(outcomes.count(kind)) for kind in ("passed", "failed", "skipped"))
        yield f"| {re.sub('^test ', '', function.replace('_', ' '))} | {counts} |"


def _word(results: Results, function: str, parameters: str) -> str:
    return WORDS[results.get((function, parameters), "skipped")]


def main() -> int:
    """Write the page from the report that is named; the exit status."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(before + "\n".join(tables(read_report(Path(sys.argv[1])))) + rest.partition(END)[2], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
