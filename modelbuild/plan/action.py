"""Actions as values: what determines an output, the key made of it, and the difference to the last time.

Deciding and explaining read the same value (`ActionManifest`), so they cannot disagree.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from modelbuild.digest import Digest, sha256_hex
from modelbuild.errors import printable
from modelbuild.records import record

#: Any value that JSON can hold.
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


class Kind(enum.StrEnum):
    """The kinds of action; each has one executor in the engine."""

    IMPORT = "import"
    ASSEMBLE = "assemble"
    TEXT = "text"
    PUBLISH = "publish"
    EXPORT = "export"


#: Raised when the output for the same inputs and options changes; part of every key.
VERSIONS: Mapping[Kind, int] = {Kind.IMPORT: 1, Kind.ASSEMBLE: 3, Kind.TEXT: 1, Kind.PUBLISH: 2, Kind.EXPORT: 1}


@record
class FileInput:
    """A file of the user; its digest comes from a stat record or from hashing it.

    by_tensor: the digest is made of the digests of the tensors in it (a weights file that is read tensor by tensor);
    otherwise it is the SHA-256 of the whole file.
    """

    role: str
    path: Path
    by_tensor: bool = False

    @property
    def scheme(self) -> str:
        """How its digest is made, as recorded in the state."""
        return "tensors" if self.by_tensor else "sha256"


@record
class ActionInput:
    """The result of another action of the plan."""

    role: str
    action: str


@record
class DigestInput:
    """Content that is known already: a blob or manifest of the store."""

    role: str
    digest: Digest


Input = FileInput | ActionInput | DigestInput


@record
class ActionManifest:
    """Everything that determines the output of an action."""

    kind: Kind
    version: int
    inputs: Mapping[str, Digest]
    options: Mapping[str, Json]

    def encode(self) -> str:
        """Canonical JSON: sorted keys, no blanks, ASCII."""
        return canonical_json(
            {"kind": self.kind, "version": self.version, "inputs": self.inputs, "options": self.options}
        )

    @property
    def key(self) -> str:
        """The action key: SHA-256 of the canonical JSON, in hex."""
        return sha256_hex(self.encode().encode())


def canonical_json(value: object) -> str:
    """The one JSON text of a value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def explain_difference(old: str, new: str) -> tuple[str, ...]:
    """Why two encoded manifests of the same output differ, one line per input, option or version."""
    before, after = json.loads(old), json.loads(new)
    return (
        *_kind_reasons(before, after),
        *_input_reasons(before["inputs"], after["inputs"], is_same_kind=before["kind"] == after["kind"]),
        *_option_reasons("", before["options"], after["options"]),
    )


def _kind_reasons(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    if before["kind"] != after["kind"]:
        yield f"{before['kind']} → {after['kind']}"
    elif before["version"] != after["version"]:
        yield f"{after['kind']} version {before['version']} → {after['version']}"


def _input_reasons(before: Mapping[str, str], after: Mapping[str, str], *, is_same_kind: bool) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        shown = printable(name)
        if name not in before:
            yield f"new input {shown}"
        elif name not in after:
            yield f"input {shown} is gone"
        elif before[name] == after[name]:
            continue
        elif _scheme(before[name]) == _scheme(after[name]):
            yield f"input {shown} changed: {short_digest(before[name])} → {short_digest(after[name])}"
        elif is_same_kind:  # another kind of action reads the same file in another way, which is no change of it
            yield f"input {shown} is known by another digest: {_scheme(before[name])} → {_scheme(after[name])}"


def _scheme(digest: str) -> str:
    """How a digest was made."""
    return digest.partition(":")[0]


def _option_reasons(prefix: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"option {prefix}{name}: not set → {_shown(after[name])}"
        elif name not in after:
            yield f"option {prefix}{name}: {_shown(before[name])} → not set"
        elif isinstance(old := before[name], Mapping) and isinstance(new := after[name], Mapping):
            yield from _option_reasons(f"{prefix}{name}.", old, new)
        elif canonical_json(before[name]) != canonical_json(after[name]):  # Python takes 1, 1.0 and true for equal
            yield f"option {prefix}{name}: {_shown(before[name])} → {_shown(after[name])}"


def short_digest(digest: str) -> str:
    """A digest as people read it: the first twelve hex digits."""
    return digest.rpartition(":")[2][:12]


def _rows(value: Json) -> str:
    """A list of short lists of words, as people would write it; empty for anything else."""
    rows = [_words(row) for row in value] if isinstance(value, list) else []
    return ", ".join(rows) if all(rows) else ""


def _words(row: Json) -> str:
    words = [item for item in row if isinstance(item, str)] if isinstance(row, list) else []
    return " ".join(filter(None, words)) if isinstance(row, list) and len(words) == len(row) else ""


def _shown(value: Json) -> str:
    return printable(_rows(value) or json.dumps(value, ensure_ascii=False), 60)
