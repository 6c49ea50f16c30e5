"""A provenance statement: what a model was made from and how, in the form that supply-chain tools read.

The form is an in-toto Statement v1 around SLSA Provenance v1 (https://slsa.dev/spec/v1.0/provenance).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from modelbuild import __version__
from modelbuild.digest import Digest
from modelbuild.errors import UsageError
from modelbuild.plan.action import DigestInput, FileInput, Json
from modelbuild.plan.decide import Decision
from modelbuild.plan.graph import PublishWork

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
#: What the parameters mean; raised with their form.
BUILD_TYPE = "urn:modelbuild:recipe:1"
_BUILDER = "urn:modelbuild:local"
#: Weights that were read tensor by tensor carry the digest over these, which no other tool computes.
_TENSOR_DIGEST = "modelbuild_tensors_v1"


def provenance(decisions: Sequence[Decision], model: str, recipe: Path, finished_ns: int | None) -> dict[str, Json]:
    """The statement about one model that is up to date; UsageError when it is not.

    decisions: for all actions of the plan. finished_ns: when its manifest was written, as far as that is known.
    Paths are relative to the directory of the recipe, so that the statement is the same on every machine.
    """
    needed = _needed(decisions, model)
    pending = [item.action.id for item in needed if item.runs]
    if pending:
        message = f"{model} is not up to date ({pending[0]} would run), so nothing can be said about how it was made"
        raise UsageError("PENDING", message, hint="run 'modelbuild build' first")
    publish = needed[-1]
    if publish.result is None:
        raise AssertionError("what does not run has a result")
    finished = {} if finished_ns is None else {"finishedOn": _time(finished_ns)}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": model, "digest": _digest_set(publish.result.digest)}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": recipe.name, "model": model},
                "internalParameters": {item.action.id: _parameters(item) for item in needed},
                "resolvedDependencies": list(_dependencies(needed, recipe.absolute().parent)),
            },
            "runDetails": {"builder": {"id": _BUILDER, "version": {"modelbuild": __version__}}, "metadata": finished},
        },
    }


def _needed(decisions: Sequence[Decision], model: str) -> list[Decision]:
    """The actions behind a model, dependencies first, its publish action last."""
    by_id = {item.action.id: item for item in decisions}
    publish = next(item for item in decisions if _publishes(item, model))
    wanted, found = [publish.action.id], set[str]()
    while wanted:
        action = wanted.pop()
        if action not in found:
            found.add(action)
            wanted += by_id[action].action.needs
    return [item for item in decisions if item.action.id in found]


def _publishes(decision: Decision, model: str) -> bool:
    return isinstance(decision.action.work, PublishWork) and str(decision.action.work.target) == model


def _parameters(decision: Decision) -> dict[str, Json]:
    if decision.manifest is None:
        raise AssertionError("what is up to date has a manifest")
    manifest = decision.manifest
    return {"kind": manifest.kind, "version": manifest.version, "key": manifest.key, "options": dict(manifest.options)}


def _dependencies(needed: Sequence[Decision], directory: Path) -> Iterator[Json]:
    """Every file and stored blob that came from outside, once."""
    found: dict[str, Json] = {}
    for decision in needed:
        digests: Mapping[str, Digest] = {} if decision.manifest is None else decision.manifest.inputs
        for item in decision.action.inputs:
            if isinstance(item, FileInput):
                name = os.path.relpath(item.path.absolute(), directory)
                found[f"{name} {item.scheme}"] = {"name": name, "digest": _digest_set(digests[item.role])}
            elif isinstance(item, DigestInput):
                name = f"{decision.action.id}: {item.role}"
                found[name] = {"name": name, "digest": _digest_set(item.digest)}
    for key in sorted(found):
        yield found[key]


def _digest_set(digest: Digest) -> dict[str, Json]:
    algorithm, _, value = digest.partition(":")
    return {_TENSOR_DIGEST if algorithm == "blake3" else algorithm: value}


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
