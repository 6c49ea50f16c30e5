"""`recipe.lock`: the digests of everything a recipe was built from and of every result, one line each.

The file is for people and version control: sorted, one fact a line, so that a difference reads well and merges well.
A path that would not stay on its line, or is no text, stands there as a JSON string.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path

from modelbuild.digest import Digest
from modelbuild.engine.facts import WorldFacts
from modelbuild.errors import DriftError, InputError
from modelbuild.events import ActionProgress, Emit
from modelbuild.formats.files import open_input, size_of_file
from modelbuild.formats.new_file import new_file
from modelbuild.plan.action import FileInput, short_digest
from modelbuild.plan.graph import Plan
from modelbuild.records import record
from modelbuild.store.store import Store

LOCK_SUFFIX = ".lock"
_HEADER = (
    "# Written by 'modelbuild build --update-lock'. Commit it; 'modelbuild build --locked' refuses what differs.\n"
)
_LIMIT_BYTES = 16 << 20


@record
class Lock:
    """inputs: digests by path relative to the recipe; models: digests of manifests by model name."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> str:
        """The text of the file."""
        rows = [f"input {digest} {_quoted(name)}" for name, digest in self.inputs.items()]
        rows += [f"model {digest} {name}" for name, digest in self.models.items()]
        return _HEADER + "".join(f"{row}\n" for row in sorted(rows, key=lambda row: (row[:5], row.split(" ", 2)[2])))


def lock_path(recipe: Path) -> Path:
    """Where the lock of a recipe stands: beside it, with the suffix .lock."""
    return recipe.with_suffix(LOCK_SUFFIX)


def read_lock(path: Path) -> Lock:
    """The lock in a file; InputError with the line when it is none."""
    try:
        source = open_input(path)
    except InputError as error:
        error.hint = error.hint or "'modelbuild build --update-lock' writes it"
        raise
    with source:
        if source.size_bytes > _LIMIT_BYTES:
            raise InputError("LIMIT", f"{source.size_bytes:,} bytes, at most {_LIMIT_BYTES:,} allowed", path=path)
        text = source.read_at(0, source.size_bytes).decode("utf-8", "replace")
    parts: dict[str, dict[str, str]] = {"input": {}, "model": {}}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        kind, _, rest = line.partition(" ")
        digest, _, shown = rest.partition(" ")
        name = _unquoted(shown)
        if kind not in parts or not name:
            message = f"line {number} is no 'input DIGEST PATH' or 'model DIGEST NAME'"
            raise InputError("LOCK", message, path=path, hint="write it anew with 'modelbuild build --update-lock'")
        parts[kind][name] = digest
    return Lock(parts["input"], parts["model"])


def write_lock(path: Path, lock: Lock) -> None:
    """Replace the file in one step; an equal one is left alone."""
    data = lock.encode().encode()
    with suppress(OSError):  # what cannot be read can perhaps be replaced, which tells why not
        if path.read_bytes() == data:
            return
    with new_file(path) as target:
        target.write(data)


def input_digests(plan: Plan, facts: WorldFacts, emit: Emit, recipe: Path) -> dict[str, str]:
    """The digests of all files that a plan reads; what no record knows is read now."""
    digests: dict[str, str] = {}
    for action in plan.actions:
        for item in action.inputs:
            if isinstance(item, FileInput):
                digests[_relative(item.path, recipe)] = _digest(item, facts, emit, action.id)
    return digests


def model_digests(plan: Plan, store: Store) -> dict[str, str]:
    """The digests of the manifests of a plan's models, as far as they stand in the store."""
    found = {str(name): store.find(name) for name in plan.models}
    return {name: entry[1] for name, entry in found.items() if entry is not None}


def refuse_drift(what: str, locked: Mapping[str, str], found: Mapping[str, str], path: Path) -> None:
    """DriftError that lists every difference, if there is one.

    Names that only the lock has are fine: they belong to models that were not asked for.
    """
    differences = [
        f"{what} {name}: {_shown(locked.get(name))} in {path.name}, {_shown(digest)} found"
        for name, digest in sorted(found.items())
        if locked.get(name) != digest
    ]
    if differences:
        hint = "go back to what was locked, or accept it with 'modelbuild build --update-lock'"
        raise DriftError("DRIFT", "\n  ".join(["what was locked has changed:", *differences]), hint=hint)


def _digest(item: FileInput, facts: WorldFacts, emit: Emit, action: str) -> Digest:
    known = facts.file_digest(item)
    if known is not None:
        return known
    total_bytes = size_of_file(item.path)
    return facts.hash_file(item, lambda done_bytes: emit(ActionProgress(action, done_bytes, total_bytes)))


def _quoted(name: str) -> str:
    return name if name.isprintable() and not name.startswith('"') else json.dumps(name)


def _unquoted(shown: str) -> str:
    """The name behind what stands in the file; "" for what is none."""
    if not shown.startswith('"'):
        return shown
    try:
        return str(json.loads(shown))
    except ValueError:
        return ""


def _relative(path: Path, recipe: Path) -> str:
    return os.path.relpath(path.absolute(), recipe.absolute().parent)


def _shown(digest: str | None) -> str:
    return "nothing" if digest is None else short_digest(digest)
