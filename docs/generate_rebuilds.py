"""Writes the table of docs/rebuilds.md by doing every edit of the mutation test and asking `explain` what would run.

usage: python docs/generate_rebuilds.py [--check]
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs.generated_page import write_page
from tests.mutation_scenes import build_scene
from tests.mutations import MUTATIONS, reasons_by_action
from tests.space import Space

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "rebuilds.md"
BEGIN = "<!-- Written by docs/generate_rebuilds.py from the edits of tests/mutations.py. -->"
END = "<!-- End of the generated part. -->"


def table() -> str:
    """One row per edit: the actions that it makes run, each with the reason that modelbuild gives."""
    return "\n".join([BEGIN, "", "| edit | what runs, and the reason shown |", "|---|---|", *_rows(), "", END])


def _rows() -> Iterator[str]:
    for name, mutation in MUTATIONS.items():
        with tempfile.TemporaryDirectory() as scratch:
            space = Space(Path(scratch))
            build_scene(mutation.scene, space)
            mutation.edit(space)
            found = reasons_by_action(space).items()
            reasons = [f"{action}: {'; '.join(texts)}".replace(scratch, ".") for action, texts in found]
        yield f"| {name} | {'<br>'.join(map(_cell, reasons)) or 'nothing'} |"


def _cell(text: str) -> str:
    text = re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?", "TIME", text)
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Write the page, or with --check compare it; the exit status."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return write_page(PAGE, before + table() + rest.partition(END)[2])


if __name__ == "__main__":
    sys.exit(main())
