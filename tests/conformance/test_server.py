"""The server against recorded answers of Ollama's, replayed by the tool that comes with the recordings."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest import mock

import pytest

from tests.conformance.recorded import load_replay
from tests.server_places import environment, make_places, named_places
from tests.space import ROOT

pytest.importorskip("aiohttp", reason="the extra `server` is not installed")

Record = Callable[[str, object], None]
#: Scenarios that may fail, each with why. A name may go from this list, and none may come.
EXCEPTIONS = {
    "gguf-alignment": "Ollama's file declares an alignment that its data do not have, so every weight is read amiss",
    "autotemplate-command-r": "our words of a known template",
    "autotemplate-gemma3-instruct": "our words of a known template",
    "autotemplate-llama2-chat": "our words of a known template",
    "adapter-safetensors": "Ollama turns the wrong matrix of a pair",
}
#: Also without --rewrite-gguf.
PLAIN_EXCEPTIONS = {
    "blobs": "a blob with the wrong digest is not kept under its real one: it would be an orphan",
    "st-bf16": "BF16 weights are noted as BF16",
    "adapter-safetensors": "an adapter keeps its precision",
}
#: Checkpoints: another converter's metadata, so names, types and shapes of tensors are compared.
_CONVERTED = "^(st-|adapter-safetensors[.]json$)"
#: Scenarios in which no GGUF is imported and no checkpoint converted: they pass in either mode.
_WITHOUT_WEIGHTS = "|".join(
    (
        "^blobs",
        "^delete-cloud",
        "^from-(missing|path)",
        "^http-",
        "^pull-",
        "^remote-(bad-host|cloud-suffix|hosts|ignored|plain)",
        "^stream-errors",
        "^val-(body|digest-empty|draft|field|files|from|json|neither|order|trailing)",
    )
)


def replay(
    shared: Path, place: Path, *options: str, only: str = "", level: str = "exact", flags: Sequence[str] = ()
) -> tuple[set[str], str]:
    """The names of scenarios that fail, and what the tool says about them; flags: for the tool itself."""
    server = f"{sys.executable} -m modelbuild serve --port {{port}} --store {{store}} {' '.join(options)}"
    command = [sys.executable, "replay.py", "-q", "--server-cmd", server, "--store", str(place / "models")]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MODELBUILD_CACHE": str(place / "cache"),
        "OLLAMA_NO_CLOUD": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [*command, *flags, "--gguf", level, "--only", only, *map(str, (shared / "golden" / "api").glob("*.json"))],
        cwd=shared / "golden",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert re.search(r"^passed [0-9]+, failed", done.stdout, re.MULTILINE), done.stdout + done.stderr
    return set(re.findall(r"^FAIL (\S+)", done.stdout, re.MULTILINE)), done.stdout


def note(record_property: Record, failed: set[str], report: str, reasons: Mapping[str, str]) -> None:
    """For docs/fidelity.md: how many scenarios passed, and why the others are allowed not to."""
    record_property("passed", re.findall(r"^passed ([0-9]+),", report, re.MULTILINE)[0])
    for name in sorted(failed):
        record_property(f"failed {name}", reasons.get(name, "unexpected"))


def test_every_scenario(shared: Path, tmp_path: Path, record_property: Record) -> None:
    """With --rewrite-gguf all recorded scenarios pass byte for byte, leftovers too, but for the listed exceptions."""
    failed, report = replay(shared, tmp_path, "--rewrite-gguf", only=r"^(?!st-)", flags=["--strict-store"])
    note(record_property, failed, report, EXCEPTIONS)

    assert failed <= set(EXCEPTIONS), report


def test_objects_have_the_recorded_bytes(shared: Path, tmp_path: Path) -> None:
    """Answers that are one object are the recorded ones to the byte; streams have the documented lines besides."""
    _, report = replay(shared, tmp_path, "--rewrite-gguf", only=r"^(?!st-)", flags=["--raw"])

    differing = [line for line in report.splitlines() if " bytes b'" in line and "-- or" not in line]
    assert differing
    assert [] == [line for line in differing if "stream bytes" not in line]


@pytest.mark.parametrize(("options", "known"), [(["--rewrite-gguf"], set()), ([], {"st-bf16", "adapter-safetensors"})])
def test_converted_checkpoints(
    shared: Path, tmp_path: Path, record_property: Record, options: list[str], known: set[str]
) -> None:
    """Checkpoints give the tensors, types and shapes that were recorded; their metadata are another converter's."""
    failed, report = replay(shared, tmp_path, *options, only=_CONVERTED, level="tensors")
    note(record_property, failed, report, PLAIN_EXCEPTIONS)

    assert failed <= known & set(PLAIN_EXCEPTIONS), report


def test_scenarios_without_weights(shared: Path, tmp_path: Path, record_property: Record) -> None:
    """What imports no GGUF passes without that switch too."""
    failed, report = replay(shared, tmp_path, only=_WITHOUT_WEIGHTS)
    note(record_property, failed, report, PLAIN_EXCEPTIONS)

    assert failed <= set(PLAIN_EXCEPTIONS), report


def test_recorded_requests_name_no_directory(shared: Path, tmp_path: Path) -> None:
    """To none of the recorded requests does an answer name a directory, but where Ollama's recorded ones do."""
    tool, places = load_replay(shared / "golden"), make_places(tmp_path)
    server = f"{sys.executable} -m modelbuild serve --port {{port}} --allow-path {places['open']}"
    arguments = argparse.Namespace(store=str(places["store"]), base_url=None, server_cmd=server)
    context = tool.Ctx(arguments)
    context.dir = str(shared / "golden" / "api")
    found: set[tuple[str, str]] = set()
    answered = 0
    with mock.patch.dict(os.environ, environment(places) | {"PYTHONPATH": str(ROOT), "OLLAMA_NO_CLOUD": "1"}):
        context.start()
    try:
        for path in sorted((shared / "golden" / "api").glob("*.json")):
            scenario = json.loads(path.read_text())
            context.wipe()
            requests = (step for step in [*scenario.get("setup", []), *scenario["steps"]] if not scenario.get("server"))
            for step in requests:
                if "action" in step:
                    context.action(step)
                    continue
                _, headers, body = context.send(step["request"])
                answered += 1
                names = named_places(f"{body.decode()}\n{headers}", places, known=True)
                found |= {(f"{path.stem} {step['request']['path']}", name) for name in names}
    finally:
        context.stop()

    assert set() == found
    assert answered > 500
