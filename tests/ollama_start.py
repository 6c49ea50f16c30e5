"""What Ollama does to a models directory when it starts, as a reader that shares nothing with modelbuild.

Every manifest is parsed; if all can be, files in `blobs/` that are not named as a digest, or that no manifest names,
are deleted once they are an hour old; then empty directories below `manifests/` go.
Here nothing is deleted, only named.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BLOB = re.compile(r"sha256-[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_KINDS = {"model", "projector", "adapter", "draft", "template", "system", "license", "params", "messages"}
_JSON_KINDS = {"params": dict, "messages": list}
_CONFIG_KEYS = ["model_format", "model_family", "model_families", "model_type", "file_type"]


def what_ollama_would_clean(models: Path) -> list[str]:
    """Files of `blobs/` that the cleaning would delete an hour from now, and directories that it would remove."""
    used: set[str] = set()
    for path in manifest_files(models):
        used |= {item["digest"] for item in _items(json.loads(path.read_text()))}
    blobs = [path for path in sorted((models / "blobs").iterdir()) if path.is_file()]
    orphans = [
        path.name for path in blobs if _BLOB.fullmatch(path.name) is None or path.name.replace("-", ":") not in used
    ]
    empty = [str(path) for path in (models / "manifests").rglob("*") if path.is_dir() and not any(path.iterdir())]
    return orphans + empty


def what_ollama_cannot_read(models: Path) -> list[str]:
    """A line for each manifest, config, blob or stray entry that its readers would stumble over."""
    return [
        *(f"stray {path.name}" for path in models.iterdir() if path.name not in ("blobs", "manifests")),
        *(f"{path}: {fault}" for path in manifest_files(models) for fault in _faults(path, models)),
        *(f"{path.name}: a directory" for path in (models / "blobs").iterdir() if not path.is_file()),
    ]


def manifest_files(models: Path) -> list[Path]:
    """Everything below `manifests/` that is a file, at whatever depth."""
    return sorted(path for path in (models / "manifests").rglob("*") if path.is_file())


def _items(manifest: dict[str, object]) -> list[dict[str, str]]:
    config, layers = manifest["config"], manifest["layers"]
    assert isinstance(config, dict)
    assert isinstance(layers, list | None)
    return [config, *(layers or [])]


def _faults(path: Path, models: Path) -> Iterator[str]:
    parts = path.relative_to(models / "manifests").parts
    if len(parts) != 4 or not all(
        pattern.fullmatch(part) for pattern, part in zip((_HOST, _NAMESPACE, _PART, _PART), parts, strict=True)
    ):
        yield "no name of a model"
    text = path.read_text()
    manifest = json.loads(text)
    if text != json.dumps(manifest, separators=(",", ":"), ensure_ascii=False) + "\n":
        yield "not one compact line"
    if list(manifest) != ["schemaVersion", "mediaType", "config", "layers"]:
        yield f"keys {list(manifest)}"
    for item in _items(manifest):
        yield from _item_faults(item, models)


def _item_faults(item: dict[str, object], models: Path) -> Iterator[str]:
    digest, kind = str(item["digest"]), str(item["mediaType"]).rpartition(".")[2]
    blob = models / "blobs" / digest.replace(":", "-")
    if _DIGEST.fullmatch(digest) is None or not blob.is_file():
        yield f"no blob {digest}"
        return
    data = blob.read_bytes()
    if len(data) != item["size"] or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        yield f"the blob {digest} has other content"
    if item["mediaType"] == "application/vnd.docker.container.image.v1+json":
        if list(json.loads(data))[:5] != _CONFIG_KEYS or not data.endswith(b'"architecture":"amd64","os":"linux"}\n'):
            yield f"config {data!r}"
    elif kind not in _KINDS:
        yield f"the kind {kind}"
    elif kind in _JSON_KINDS and not isinstance(json.loads(data), _JSON_KINDS[kind]):
        yield f"{kind} {data[:40]!r}"
    elif kind in ("model", "projector", "adapter", "draft") and data[:4] != b"GGUF":
        yield f"{kind} is no GGUF"
