"""docs/security.md states the limits that the code has."""

from __future__ import annotations

import json
import re

import pytest

from modelbuild.convert import checkpoint
from modelbuild.engine import archive
from modelbuild.formats import json_text, modelfile, safetensors, safetensors_index
from modelbuild.formats.gguf import limits
from modelbuild.recipe import documents, go_scan, request_checks, text
from modelbuild.server.settings import Limits
from modelbuild.store import manifest
from modelbuild.template import expressions, parser
from tests.space import ROOT

TABLE = json.loads((ROOT / "tests/data/threat_cases.json").read_text("utf-8"))
PAGE = (ROOT / "docs/security.md").read_text("utf-8")


def mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB"


ROWS = {
    "GGUF header": f"{mib(limits.HEADER_LIMIT_BYTES)}, {limits.KEY_COUNT_LIMIT:,} keys, "
    f"{limits.TENSOR_COUNT_LIMIT:,} tensors",
    "GGUF string, array": f"{mib(limits.STRING_LIMIT_BYTES)}, {limits.ARRAY_LIMIT:,} elements",
    "safetensors header": mib(safetensors.HEADER_LIMIT_BYTES),
    "index of safetensors files": mib(safetensors_index._INDEX_LIMIT_BYTES),
    "tokenizer of a checkpoint": f"{mib(checkpoint.TOKENIZER_LIMIT_BYTES)}, {checkpoint._TOKENIZER_MARK_LIMIT:,} "
    f"commas, colons and brackets, {checkpoint._LINE_LIMIT:,} lines",
    "JSON of a checkpoint": f"{mib(json_text.FILE_LIMIT_BYTES)}, {json_text.DEPTH_LIMIT} levels, "
    f"{json_text.MARK_LIMIT:,} commas, colons and brackets",
    "recipe in YAML": f"{mib(text.TEXT_LIMIT_BYTES)}, {text.DEPTH_LIMIT} levels, {text.NODE_LIMIT:,} values, "
    f"{text.ALIAS_LIMIT:,} aliases that expand to {text.EXPANDED_NODE_LIMIT:,} values",
    "included files": f"{documents.INCLUDE_LIMIT}, {documents.INCLUDE_DEPTH_LIMIT} levels",
    "Modelfile": f"{mib(modelfile.SIZE_LIMIT_BYTES)}, {modelfile.COMMAND_LIMIT:,} commands",
    "Go template": f"{mib(parser.MAX_BYTES)}, {expressions.MAX_NESTING} levels, {expressions.MAX_NODES:,} nodes",
    "manifest": f"{mib(manifest.MANIFEST_LIMIT_BYTES)}, {manifest.LAYER_COUNT_LIMIT:,} layers",
    "create request": f"{mib(Limits().json_bytes)}, {request_checks.MESSAGE_LIMIT:,} messages, "
    f"{go_scan.MARK_LIMIT:,} commas, colons and brackets",
    "archive": f"a ratio of {archive._RATIO_LIMIT} between content and compressed size",
}


@pytest.mark.parametrize("name", ROWS)
def test_limits_of_the_page_are_those_of_the_code(name: str) -> None:
    """A limit that is changed in the code alone fails here."""
    assert f"| {name} | {ROWS[name]} |" in PAGE


def test_the_page_speaks_of_cases_that_have_tests() -> None:
    """A case that is answered otherwise is still a case, with a test that holds the answer."""
    table = PAGE.split("## Where we answer otherwise")[1].split("\n## ")[0]
    cases = re.findall(r"\b[a-z]{1,2}[0-9]{1,2}", " ".join(re.findall(r"^\| ([a-z0-9, ]+) \|", table, re.MULTILINE)))

    assert cases
    assert [] == [case for case in cases if case not in TABLE]
