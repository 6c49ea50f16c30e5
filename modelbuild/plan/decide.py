"""Run it or not, and why: the one place that decides, read by `plan`, `build` and `explain` alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from modelbuild.digest import Digest
from modelbuild.plan.action import (
    VERSIONS,
    ActionInput,
    ActionManifest,
    DigestInput,
    FileInput,
    canonical_json,
    explain_difference,
    short_digest,
)
from modelbuild.plan.graph import Action, ImportWork, TextWork
from modelbuild.records import record


@record
class Result:
    """What an action made: a blob, or for publish a manifest (size_bytes then is the size of the whole model)."""

    digest: Digest
    size_bytes: int

    def encode(self) -> str:
        """Canonical JSON, as recorded in the state."""
        return canonical_json({"digest": self.digest, "size_bytes": self.size_bytes})

    @classmethod
    def decode(cls, text: str) -> Result:
        """The result recorded as `text`."""
        record = json.loads(text)
        return cls(Digest(record["digest"]), int(record["size_bytes"]))


@record
class Decision:
    """Whether an action runs.

    manifest: None when an input is not known yet. result: the recorded result when it does not run.
    reasons: why it runs, one line each; empty when it is up to date. expected: the result that running it will give,
    where that follows from the input alone. made_by: an action of the same plan that runs and makes the same, so that
    this one does not.
    """

    action: Action
    manifest: ActionManifest | None
    result: Result | None
    reasons: tuple[str, ...]
    expected: Result | None = None
    made_by: str = ""

    @property
    def runs(self) -> bool:
        """Is there something to do?"""
        return self.result is None and not self.made_by


class Facts(Protocol):
    """What deciding may ask about the world; nothing it answers with changes anything."""

    def file_digest(self, item: FileInput) -> Digest | None:
        """The digest of a file as far as it is known without reading the file."""

    def file_size(self, path: Path) -> int | None:
        """The size of a file in bytes; None when it is gone."""

    def unknown_file_reason(self, item: FileInput) -> str:
        """Why the digest of that file is not known."""

    def recorded(self, key: str) -> tuple[str, str] | None:
        """Manifest and result recorded for an action key."""

    def last_recorded(self, action: Action) -> tuple[str, str] | None:
        """Manifest and result of the action that last made this action's output."""

    def missing(self, action: Action, result: Result) -> str:
        """What of a recorded result does not stand in the store any more; an empty text when all does."""


def decide(action: Action, results: Mapping[str, Result], facts: Facts, *, force: bool = False) -> Decision:
    """The decision for one action; `results` holds those of the actions before it that are certain."""
    inputs: dict[str, Digest] = {}
    unknown: list[str] = []
    for item in action.inputs:
        digest, reason = _input_digest(item, results, facts)
        if digest is None:
            unknown.append(reason)
        else:
            inputs[item.role] = digest
    if unknown:
        return Decision(action, None, None, tuple(dict.fromkeys((*unknown, *_known_difference(action, inputs, facts)))))
    manifest = ActionManifest(action.kind, VERSIONS[action.kind], inputs, action.options)
    if force:
        return Decision(action, manifest, None, ("forced",))
    return _decide_known(action, manifest, facts)


def _known_difference(action: Action, inputs: Mapping[str, Digest], facts: Facts) -> tuple[str, ...]:
    """What certainly differs from the last time while some inputs are not known, which are taken to be as they were."""
    last = facts.last_recorded(action)
    if last is None:
        return ()
    before = json.loads(last[0])["inputs"]
    assumed = {item.role: before.get(item.role, "") for item in action.inputs} | dict(inputs)
    manifest = ActionManifest(action.kind, VERSIONS[action.kind], assumed, action.options)
    return explain_difference(last[0], manifest.encode())


def _input_digest(
    item: FileInput | ActionInput | DigestInput, results: Mapping[str, Result], facts: Facts
) -> tuple[Digest | None, str]:
    if isinstance(item, DigestInput):
        return item.digest, ""
    if isinstance(item, ActionInput):
        result = results.get(item.action)
        return (None, f"waits for {item.action}") if result is None else (result.digest, "")
    digest = facts.file_digest(item)
    return digest, "" if digest is not None else facts.unknown_file_reason(item)


def _decide_known(action: Action, manifest: ActionManifest, facts: Facts) -> Decision:
    recorded = facts.recorded(manifest.key)
    evident = _evident_result(action, manifest, facts)
    result = evident or (None if recorded is None else Result.decode(recorded[1]))
    missing = "" if result is None else facts.missing(action, result)
    if result is not None and not missing:
        return Decision(action, manifest, result, ())
    last = facts.last_recorded(action)
    difference = () if last is None else explain_difference(last[0], manifest.encode())
    was_built = recorded is not None or (last is not None and not difference)
    reasons = difference or ((missing,) if was_built else ("never built",))
    return Decision(action, manifest, None, reasons, evident)


def _evident_result(action: Action, manifest: ActionManifest, facts: Facts) -> Result | None:
    """Imports and texts keep their content as it is, so their result follows from the input alone."""
    if isinstance(action.work, ImportWork):
        size_bytes = facts.file_size(action.work.path)
        return None if size_bytes is None else Result(next(iter(manifest.inputs.values())), size_bytes)
    if isinstance(action.work, TextWork):
        return Result(next(iter(manifest.inputs.values())), len(action.work.data))
    return None


def mark_repeats(decisions: Iterable[Decision]) -> list[Decision]:
    """The decisions of a plan, in its order, where what two actions would make is left to the first of them."""
    makers: dict[object, str] = {}
    made_by: dict[str, str] = {}
    marked = []
    for decision in decisions:
        name = decision.action.id
        maker = makers.setdefault(_what_it_makes(decision, made_by), name) if decision.runs else name
        if maker != name:
            made_by[name] = maker
            decision = replace(decision, made_by=maker)
        marked.append(decision)
    return marked


def _what_it_makes(decision: Decision, made_by: Mapping[str, str]) -> object:
    """Equal for two actions with the same output: their key, or while that is not known what it will be made of."""
    action = decision.action
    if decision.manifest is not None:
        return decision.manifest.key
    inputs = tuple(
        ActionInput(item.role, made_by.get(item.action, item.action)) if isinstance(item, ActionInput) else item
        for item in action.inputs
    )
    return action.kind, inputs, canonical_json(action.options)


def describe_missing_blob(digest: Digest, found_bytes: int | None, wanted_bytes: int) -> str:
    """The reason for a blob that is not there, or not of its size; an empty text when it is."""
    if found_bytes is None:
        return f"blob {short_digest(digest)} is missing from the store"
    if found_bytes != wanted_bytes:
        return f"blob {short_digest(digest)} has {found_bytes} bytes, {wanted_bytes} expected"
    return ""
