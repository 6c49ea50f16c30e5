"""docs/benchmarks.md: a section for each comparison, so that one can be measured again without the others."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import measure

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
#: Comparison → the heading of its section, in the order of the page.
HEADINGS: Mapping[str, str] = {
    "noop": "Builds with nothing to do",
    "files": "Files that are there",
    "weights": "Checkpoints",
    "fan-out": "Several types, and one changed tensor",
    "kernels": "Packing",
    "header": "Headers",
    "upload": "Uploads",
    "watch": "Watching",
}
_HEAD = """# Benchmarks

What modelbuild takes, beside tools that do the same. What stands in one table was measured in one run on one machine.
Repeat all of it, or some, with

```
python -m benchmarks --write
python -m benchmarks --write noop kernels
```

A ratio is ours / peer: below 1 is less time or memory; where the unit counts work per second, above 1 is faster.
CPU time is user and system time, the least of several runs where a run is short. What a conversion costs before the
first weight is the row of 4 M weights, and part of every other row; budgets of conversions are meant for models of
a gigabyte and more, where it does not count. `--quick` takes small sizes.
Peers that are not installed are skipped, and the table says what to install.

`rewrite + llama.cpp` stands in for llama.cpp's converter and `llama-quantize`, which no Python package brings: our own
rewriting of the checkpoint as BF16, and llama.cpp's packing function on one core, measured with two million weights as
Q4_K and multiplied.
"""
_TAIL = """
## In detail

Each comparison can be run alone in more detail, as in `python -m benchmarks.noop`: `checkpoint`, `fan_out`, `kernels`,
`gguf_header`, `store`, `watch`, and `upload` and `connections` for the server, whose peers are other servers.
`tests/native/test_speed.py` and `tests/e2e/test_costs.py` hold the ratios of kernels, of builds with nothing to do, of
hashing and of edits in every test run, with room for a busy machine.
"""
_SECTION = re.compile(r"<!-- (?P<name>\S+) -->\n(?P<body>.*?)<!-- end -->\n", re.DOTALL)


def write(tables: Mapping[str, str], *, quick: bool, page: Path = PAGE) -> None:
    """Put new tables into the page; sections of other comparisons stay as they are."""
    old = page.read_text("utf-8") if page.exists() else ""
    sections = {found["name"]: found["body"] for found in _SECTION.finditer(old)}
    size, date = "quick" if quick else "full", time.strftime("%Y-%m-%d", time.gmtime())
    for name, table in tables.items():
        sections[name] = f"{measure.describe_machine()}, {date}, {size}.\n\n{table}\n\n"
    parts = [
        f"\n## {HEADINGS[name]}\n\n<!-- {name} -->\n{sections[name]}<!-- end -->\n"
        for name in HEADINGS
        if name in sections
    ]
    page.write_text("".join([_HEAD, *parts, _TAIL]), "utf-8")
