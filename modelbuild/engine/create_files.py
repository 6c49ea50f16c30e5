"""The file sets of a create request: what each one is, and whether its blobs are there and sound.

Source: Ollama's create API, August 2026: how it tells what a set is, its order of checks, its texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.engine.gguf_wording import VALIDATION_FAULT, word_gguf_fault
from modelbuild.errors import InputError
from modelbuild.formats.files import open_input
from modelbuild.formats.gguf.reader import open_gguf
from modelbuild.formats.json_text import FILE_LIMIT_BYTES
from modelbuild.model_name import parse_name
from modelbuild.plan.gguf_units import shard_of
from modelbuild.plan.layer_kind import count_shards
from modelbuild.recipe.reference import split_source
from modelbuild.recipe.request import (
    CreateRequest,
    RequestError,
    canonical_digest,
    is_known_digest,
    is_remote_request,
    is_well_formed_digest,
)
from modelbuild.store.config import decode_config
from modelbuild.store.store import Store

#: GGUF in either byte order.
_MAGICS = (b"GGUF", b"FUGG")
_MAGIC_BYTES = 4


def check_file_sets(request: CreateRequest, store: Store) -> tuple[str, ...]:
    """The status lines for a request's files, in order; RequestError for the first set that cannot be used."""
    if is_remote_request(request):
        return ()
    lines: list[str] = []
    if not request.from_ and request.files is not None:
        lines += _check_set(request.files, store, "converting model", 500)
    if request.draft_files is not None:
        _refuse_safetensors_draft(request, store)
        lines += _check_set(request.draft_files, store, "converting model", 400)
    if request.adapters is not None:
        lines += _check_set(request.adapters, store, "converting adapter", 400)
        if "parsing GGUF" in lines and len(request.adapters) > 1 and not _is_checkpoint(request.adapters):
            raise RequestError(400, "only one adapter is currently supported")
    return tuple(lines)


def _check_set(entries: Mapping[str, str], store: Store, converting: str, status: int) -> list[str]:
    """status: what faults of the files are answered with."""
    if _is_checkpoint(entries):
        _check_checkpoint(entries, store, status)
        return [converting]
    if not any(name.endswith(".gguf") for name in entries) and not _holds_gguf(entries, store):
        raise RequestError(400, "unknown type")
    if converting == "converting adapter" and len(entries) > 1:
        raise RequestError(400, "only one adapter is currently supported")
    for name in sorted(entries, key=str.encode):
        _check_gguf(name, blob_path(entries[name], store, status), status)
    return ["parsing GGUF"] * len(entries)


def _is_checkpoint(entries: Mapping[str, str]) -> bool:
    return any(name.endswith(".safetensors") for name in entries)


def _holds_gguf(entries: Mapping[str, str], store: Store) -> bool:
    """Does a file begin as GGUF? A blob that is missing or empty ends the search."""
    for name in sorted(entries, key=str.encode):
        if not is_known_digest(entries[name]):
            return False
        magic = _magic(store.blobs.path(canonical_digest(entries[name])))
        if magic in _MAGICS:
            return True
        if not magic:
            return False
    return False


def blob_path(digest: str, store: Store, status: int) -> Path:
    """Where the blob of a request's digest stands; RequestError when there cannot be, or is, none."""
    if not is_well_formed_digest(digest):
        raise RequestError(status, "invalid digest format")
    path = store.blobs.blobs / digest.replace(":", "-", 1)
    if not is_known_digest(digest) or store.blobs.size_of(canonical_digest(digest)) is None:
        raise RequestError(status, f"open {path}: no such file or directory")
    return path


def _check_gguf(name: str, path: Path, status: int) -> None:
    if _magic(path) not in _MAGICS:
        raise RequestError(400, "supplied file was not in GGUF format")
    try:
        header = open_gguf(path)
    except InputError as error:
        raise RequestError(status, word_gguf_fault(path) or VALIDATION_FAULT) from error
    try:
        if count_shards(header) > 1:
            shard_of(name, header)
    except InputError as error:
        raise RequestError(status, error.message) from error


def _check_checkpoint(entries: Mapping[str, str], store: Store, status: int) -> None:
    for name in sorted(entries, key=str.encode):
        if name.startswith("/") or ".." in name.split("/"):
            raise RequestError(400, f"file path must be relative: {name}")
    for name in sorted(entries, key=str.encode):
        digest = entries[name]
        if not is_well_formed_digest(digest):
            raise RequestError(status, "invalid digest format")
        if not is_known_digest(digest) or store.blobs.size_of(canonical_digest(digest)) is None:
            raise RequestError(status, f"open {name}: no such file or directory")
    needed = "adapter_config.json" if status == 400 else "config.json"
    if needed not in entries:
        raise RequestError(status, f"open {needed}: no such file or directory")


def _refuse_safetensors_draft(request: CreateRequest, store: Store) -> None:
    if not _is_checkpoint(request.draft_files or {}):
        return
    family = ""
    if request.from_:
        found = store.find(parse_name(split_source(request.from_)[0]))
        if found is not None:
            config = found[0].config
            path = store.blobs.sound_path(config.digest, config.size_bytes)
            with open_input(path) as source:
                data = source.read_at(0, min(source.size_bytes, FILE_LIMIT_BYTES))
            family = decode_config(data, path).model_family
    raise RequestError(400, f'MTP draft safetensors require a qwen3.5 base model, got "{family}"')


def _magic(path: Path) -> bytes:
    try:
        with open_input(path) as source:
            return source.read_at(0, min(_MAGIC_BYTES, source.size_bytes))
    except InputError:
        return b""
