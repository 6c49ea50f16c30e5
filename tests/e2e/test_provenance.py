"""The statement about how a model was made."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.small_gguf import write_gguf
from tests.space import Space


@pytest.fixture
def built(space: Space) -> Space:
    """A model over an imported file."""
    space.write("weights.gguf", write_gguf())
    space.recipe("models:\n  base: {from: ./weights.gguf}\n  m: {from: {model: base}, system: One.}\n")
    space.build()
    return space


def test_statement_names_subject_inputs_and_builder(built: Space) -> None:
    """The subject is the manifest as it stands, the dependencies are the files with their own digests."""
    manifest = next(path for path in (built.store / "manifests").rglob("latest") if path.parent.name == "m")

    statement = json.loads(built.run("explain", "m", "--provenance").stdout.splitlines()[-1])

    assert ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1") == (
        statement["_type"],
        statement["predicateType"],
    )
    sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert [{"name": "m:latest", "digest": {"sha256": sha256}}] == statement["subject"]
    definition = statement["predicate"]["buildDefinition"]
    weights = hashlib.sha256((built.root / "weights.gguf").read_bytes()).hexdigest()
    assert {"name": "weights.gguf", "digest": {"sha256": weights}} in definition["resolvedDependencies"]
    assert {"recipe": "recipe.yaml", "model": "m:latest"} == definition["externalParameters"]
    assert "modelbuild" in statement["predicate"]["runDetails"]["builder"]["version"]
    assert str(built.root) not in json.dumps(statement)


def test_no_statement_about_what_is_not_up_to_date(built: Space) -> None:
    """What would be rebuilt has no provenance yet: status 2 and what to type."""
    (built.root / "weights.gguf").unlink()
    built.write("weights.gguf", write_gguf(seed=1))

    outcome = built.run("explain", "m", "--provenance")

    assert (2, "") == (outcome.status, outcome.stdout)
    assert "modelbuild build" in outcome.stderr


def test_plan_tells_room_and_time(built: Space) -> None:
    """What runs has a size and, once something like it ran, a time."""
    (built.root / "weights.gguf").unlink()
    built.write("weights.gguf", write_gguf(seed=1))

    plan = built.run("plan", "recipe.yaml").stdout.splitlines()
    rows = [json.loads(line) for line in built.run("plan", "recipe.yaml", "--json").stdout.splitlines()]

    assert "of disk needed" in plan[-1]
    assert "going by earlier runs" in plan[-1]
    assert all((row["expected_seconds"] is not None) == row["runs"] for row in rows)
