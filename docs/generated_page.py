"""How a page that a program writes is written, or compared with what stands there."""

from __future__ import annotations

import sys
from pathlib import Path


def write_page(page: Path, text: str) -> int:
    """Write the page, or with --check on the command line only compare it; the exit status."""
    if "--check" in sys.argv[1:]:
        return 0 if page.exists() and page.read_text("utf-8") == text else 1
    page.write_text(text, "utf-8")
    return 0
